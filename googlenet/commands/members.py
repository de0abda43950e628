"""Training an ensemble, as train.py --ensemble does: its members one after the other, then a table of them."""
from __future__ import annotations

from googlenet import runs
from googlenet.commands import text, training
from googlenet.ensembles import Ensemble
from googlenet.scripts import shown_path
from googlenet.series import FREE, Planned
from minigrad.errors import InputError


def carry_out(ensemble: Ensemble) -> int:
    """Train all members that have not ended, and test each; return the exit code: 0, or 130 where a signal stopped it.
    """
    runs.prepare_kernels(ensemble.members[-1].training)
    images = training.open_test(ensemble.members[-1].training.data)
    try:
        for number, member in enumerate(ensemble.members, 1):
            if member.folder.name in ensemble.ended:
                continue
            print(f"\n{member.folder.name}, {number} of {len(ensemble.members)}: {differences(member, ensemble)}")
            if not trained(member, ensemble):
                return training.STOPPED
            ensemble.end(member, training.test(member.best, member.training, images) if images else None)
    except KeyboardInterrupt:
        print(f"go on with: {training.going_on(ensemble.folder)}")
        raise
    tell(ensemble)
    return 0


def differences(member: Planned, ensemble: Ensemble) -> str:
    """Return what tells a member from the others, in words."""
    width, usual = member.network.width, ensemble.members[0].network.width
    wider = "" if width == usual else f", width {width:g} instead of {usual:g} (ours: the paper's is not told)"
    return f"sampling seed {member.training.sampling_seed}{wider}"


def trained(member: Planned, ensemble: Ensemble) -> bool:
    """Train a member, or what is left of it; return whether the next one may begin."""
    require_as_planned(member)
    ended = training.carry_out(member.begun(), ensemble.folder)
    if ended.done and ended.stopped:
        print(f"stopped; go on with: {training.going_on(ensemble.folder)}")
    return not ended.stopped


def require_as_planned(member: Planned) -> None:
    """Raise InputError where a member was gone on with by itself with settings that the others do not have."""
    kept = member.kept()
    if not kept:
        return
    for name in sorted(runs.CHANGEABLE - FREE):
        own, planned = getattr(kept.training, name), getattr(member.training, name)
        if own != planned:
            raise InputError(f"{member.folder} was trained by itself with {name} {own}, the others with {planned}: "
                             "move it out of the ensemble, which then trains it anew")


def tell(ensemble: Ensemble) -> None:
    """Print the test of each member and their mean, and the command that tests them together."""
    rows = [("", "sampling seed", "top-1 error", "top-5 error")]
    scores = []
    for member in ensemble.members:
        score = ensemble.ended[member.folder.name]
        if score is not None:
            scores.append(score)
            wider = " (wider)" * (member.network.width > ensemble.members[0].network.width)
            rows.append((member.folder.name + wider, str(member.training.sampling_seed), f"{score.top1_error:.2%}",
                         f"{score.top5_error:.2%}"))
    if scores:
        means = (sum(errors) / len(scores) for errors in zip(*((each.top1_error, each.top5_error) for each in scores),
                                                             strict=True))
        print("\n" + text.table([*rows, ("mean", "", *(f"{error:.2%}" for error in means))]))
    data = ensemble.members[-1].training.data
    print(f"evaluate with: {training.evaluation(shown_path(ensemble.folder), data)} --table")
