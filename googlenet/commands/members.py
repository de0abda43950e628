"""Training an ensemble, as train.py --ensemble does: its members one after the other, then a table of them."""
from __future__ import annotations

from shlex import quote

from googlenet import runs
from googlenet.commands import text, training
from googlenet.ensembles import Ensemble
from googlenet.reports.curves import curves
from googlenet.reports.log import read_log
from googlenet.series import Planned


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
        print(f"go on with: python train.py --resume {quote(str(ensemble.folder))}")
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
    kept = member.kept()
    if kept and kept.ended:  # but killed before that was noted
        curves(read_log(member.folder / "log.csv"), member.folder / "curves.png")
        return True
    ended = training.carry_out(member.begun(), ensemble.folder)
    if ended.done and ended.stopped:
        print(f"stopped; go on with: python train.py --resume {quote(str(ensemble.folder))}")
    return not ended.stopped


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
    source = "" if data == "embedded" else f" --data {quote(data)}"
    files = f"{quote(str(ensemble.folder))}/model-*/best.h5"
    print(f"evaluate with: python evaluate.py --weights {files}{source} --table")
