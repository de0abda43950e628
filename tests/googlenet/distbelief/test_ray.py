"""The same on Ray: this machine's own, and a cluster of several local nodes."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest

from googlenet.distbelief import ray_cluster
from googlenet.distbelief.job import Plan
from googlenet.distbelief.messages import Place
from googlenet.distbelief.ray_cluster import Hand, path_for_all, require_program, threads_of
from googlenet.distbelief.ray_shards import EmptyShardError, ShardActor, states_of
from googlenet.distbelief.ray_workers import RayLink
from googlenet.distbelief.server import Applied
from googlenet.distbelief.worker import Found
from googlenet.training import Epoch, Fault, Step, Trainer, configuration
from googlenet.training.images import open_data
from googlenet.training.records import Losses
from googlenet.training.replica import Gradient
from googlenet.weights import load_model
from minigrad import InputError
from tests.googlenet.distbelief.cases import (
    alive,
    assert_same,
    config_of,
    descendants,
    state_of,
    trained,
    trainer_of,
    words_of,
)
from tests.runs import ROOT, TINY, command, computing_alone, run_folder, write_set

ray = pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds and stops processes as Linux has them")
one_thread = pytest.fixture(computing_alone, scope="module", autouse=True)
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}  # no token is written to the user's folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data"), train=18)


@pytest.fixture(scope="module", autouse=True)
def environment():
    """What Ray's processes are started with, and nothing of what it adds stays."""
    with mock.patch.dict(os.environ, ENVIRONMENT):
        yield


@pytest.fixture(scope="module")
def here(environment):
    """Ray on this machine."""
    with ray_cluster.termination_kept():
        ray.init(num_cpus=4, log_to_driver=False, include_dashboard=False, configure_logging=False)
    yield
    ray.shutdown()


def pid_of(peer) -> int:
    """The process of an actor."""
    return ray.get(peer.actor.__ray_call__.remote(lambda self: os.getpid()))


def node_of(peer) -> str:
    """The node of an actor."""
    return ray.get(peer.actor.__ray_call__.remote(lambda self: ray.get_runtime_context().get_node_id()))


def run_with(trainer, actions) -> list:
    """All records of a run; `actions` are called after the steps that they stand for."""
    found, due = [], dict(actions)
    with closing(trainer.records()) as records:
        for record in records:
            found.append(record)
            if isinstance(record, Step):
                due.pop(record.step, lambda: None)()
    assert not due, "it ended before that"
    return found


def faults_of(found) -> list[str]:
    return [each.reason for each in found if isinstance(each, Fault)]


def assert_whole(trainer, found, first: int = 1) -> None:
    """Each step was taken once, each push counted once, each epoch follows its last step, and nothing is no number."""
    steps = [each.step for each in found if isinstance(each, Step)]
    assert steps == list(range(first, steps[-1] + 1))
    assert sum(place.step for place in trainer.places.values()) == trainer.step * trainer.config.push_every
    for before, record in pairwise(found):
        if isinstance(record, Epoch):
            told = [each for each in found[:found.index(record)] if isinstance(each, Step)]
            assert (record.step, record.images) == (told[-1].step, told[-1].images)
            assert not isinstance(before, Epoch)
    epochs = trainer.config.epochs
    assert [each.epoch for each in found if isinstance(each, Epoch)][-1] == epochs - 1
    under_way = trainer.config.workers * (1 + trainer.config.overlap) * trainer.config.push_every
    assert epochs * trainer.loader.batches <= trainer.covered < epochs * trainer.loader.batches + under_way
    assert all(np.isfinite(array).all() for array in state_of(trainer).values())


# Without a cluster.

def test_workers_have_as_many_threads_as_leave_room_for_all():
    def threads(cpus, workers, given=0):
        nodes = [{"Alive": True, "Resources": {"CPU": float(count)}} for count in cpus]
        return threads_of([*nodes, {"Alive": False, "Resources": {"CPU": 64.0}}],
                          config_of(".", workers=workers, threads=given))

    assert threads([16], 3) == 5
    assert threads([4, 4, 4], 3) == 4
    assert threads([3, 3], 3) == 1
    assert threads([8, 2], 2) == 4
    assert threads([4, 4], 4, given=1) == 1
    with pytest.raises(InputError, match=r"--workers 3 of 1 thread each: the cluster's 2 CPUs have room for 2: give"):
        threads([2], 3)
    with pytest.raises(InputError, match=r"--workers 2 of 3 threads each: the cluster's 4 CPUs have room for 0"):
        threads([2, 2], 2, given=3)


def test_a_node_without_the_program_is_told_of_once():
    error = RuntimeError("The actor died because of an error raised in its creation task\nRuntimeError: The actor with "
                         "name ShardActor failed to import on the worker.\nModuleNotFoundError: No module named 'x'\n")
    with pytest.raises(InputError, match=r"can't run this program \(ModuleNotFoundError: No module named 'x'\): inst"):
        require_program(error)
    require_program(RuntimeError("The actor died unexpectedly before finishing this task."))


def test_a_path_of_this_folder_is_a_whole_one_for_other_nodes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded").mkdir()
    (tmp_path / "own").mkdir()
    assert path_for_all("own") == str(tmp_path / "own")
    assert path_for_all("embedded") == "embedded"
    assert path_for_all("cifar10") == "cifar10"


def shard_of(data, **settings) -> tuple[ShardActor, Plan, list]:
    """An actor's object that is empty, and the states of the trainer's shards."""
    trainer = trainer_of(config_of(data, workers=2, cluster="auto", averaging="tail", averaging_start=0.0, shards=2,
                                   **settings))
    plan = trainer.job.plan()
    trainer.job.counts = trainer.counts
    plan.average = trainer.average.settings()
    return ShardActor(plan), plan, states_of(trainer.job)


def test_a_shard_takes_a_state_only_where_it_has_none(data):
    shard, _, states = shard_of(data)
    assert not shard.alive()
    with pytest.raises(EmptyShardError):
        shard.fetch(0)
    assert shard.load(states[1])
    assert shard.alive()
    version, weights, rate, _ = shard.fetch(0)
    assert (version, rate > 0) == (0, True)
    np.testing.assert_array_equal(weights, states[1].weights)
    assert not shard.load(states[0])
    assert shard.number == 1


def test_a_push_that_comes_again_is_answered_and_changes_nothing(data):
    shard, _, states = shard_of(data, lr=0.002)
    shard.load(states[1])
    gradient, none = np.ones_like(states[1].weights), np.empty(0, np.float32)
    first, fetched = shard.push(gradient, 0, 1, 0, 1, 1.0, none)
    weights = fetched.weights.copy()
    assert first == Applied(0, pytest.approx(0.002))
    again, fetched = shard.push(gradient, 0, 1, 0, 1, 1.0, none)
    assert (again.staleness, again.lr, fetched.version) == (0, pytest.approx(0.002), 1)
    np.testing.assert_array_equal(fetched.weights, weights)
    newer, _ = shard.push(gradient, 1, 1, 7, 1, 1.0, none)
    assert newer.staleness == 0, "a version of the shard that died is none of this one"


@pytest.mark.parametrize("averaging", ["tail", "ema"])
def test_the_weights_stood_still_in_the_updates_that_a_shard_lacks(averaging, data):
    trainer = trainer_of(config_of(data, workers=2, cluster="auto", averaging=averaging, shards=2))
    trainer.job.counts = trainer.counts
    plan = trainer.job.plan()
    plan.average = trainer.average.settings() | {"start": 3}
    shard = ShardActor(plan)
    state = states_of(trainer.job)[1]
    shard.load(state)
    found = shard.look(40, 44)
    assert (found.counts.version, found.counts.batches) == (40, 44)
    count = 37 if averaging == "tail" else 1
    np.testing.assert_allclose(found.kept, count * state.weights.astype(np.float64))
    shard.push(np.ones_like(state.weights), 0, 1, 40, 1, 1.0, np.empty(0, np.float32))
    found = shard.look(40, 44)  # one that was applied, but not counted yet
    if averaging == "tail":
        np.testing.assert_allclose(found.kept / 37, state.weights, atol=0.02)
    assert found.counts.seen == {0: 1}


class Actor:
    """What stands in for a shard's: its calls are done at once."""

    def __init__(self, shard):
        self.calls = []
        for name in ("fetch", "push"):
            setattr(self, name, Remote(getattr(shard, name), name, self.calls))


class Remote:
    def __init__(self, call, name, calls):
        self.call, self.name, self.calls = call, name, calls

    def remote(self, *arguments):
        self.calls.append(self.name)
        return self.call(*arguments)


def test_a_worker_fetches_between_its_pushes_too(data):
    """With --push-every 2, at every step, as local workers do."""
    shard, plan, states = shard_of(data, push_every=2)
    shard.load(states[1])
    config = plan.config
    replica = trainer_of(config, Trainer).replica
    actor = Actor(shard)
    link = RayLink(replica, 0, Place(), [actor], list)
    link.slices = [slice(None)]
    link.own, link.sum = np.zeros_like(states[1].weights), np.zeros_like(states[1].weights)
    link.join()
    found = Found(0, link.versions)
    link.fetch()
    found.add(Gradient(Losses(1.0, 1.0, 1.0, 1.0), 4, 1.0, 0.0, 0), Place(2, 0, 2), 2)
    link.push(found)
    link.fetch()
    assert actor.calls == ["fetch", "fetch", "push"]
    assert link.versions == [1]


def test_a_worker_whose_step_never_ends_hangs():
    hand = Hand(None)
    assert not hand.hangs(0.0), "nothing is under way"
    hand.begin(Remote(lambda: "under way", "step", []))
    assert not hand.hangs(5.0)
    hand.step_at -= 1799
    assert not hand.hangs(5.0), "it may still compile, or wait for a shard"
    hand.step_at -= 2
    assert hand.hangs(5.0) == "has computed for 1801 s"
    hand.usual = 10.0
    assert hand.hangs(5.0) == "has computed for 1801 s, where a step took 10 s"
    hand.usual = 100.0
    assert not hand.hangs(5.0)


# On this machine's own.

@pytest.mark.parametrize("model", [{}, {"variant": "torchvision"}], ids=str)
def test_one_worker_on_ray_is_serial_training_bit_for_bit(model, data, here):
    config = config_of(data, averaging="ema", accumulate=2, cluster="auto")
    serial, alone = trainer_of(config, Trainer, **model), trainer_of(config, **model)
    told = [[str(each._replace(crew=None, images_per_second=0) if isinstance(each, Step) else each)
             for each in trained(trainer)] for trainer in (serial, alone)]
    assert told[0] == told[1]
    assert_same(state_of(serial), state_of(alone))


@pytest.mark.parametrize("settings", [{"overlap": True}, {"look_ahead": True},
                                      {"warm_start": 5, "push_every": 2}], ids=str)
def test_several_train_together(settings, data, here, tmp_path):
    trainer = trainer_of(config_of(data, workers=2, epochs=3, cluster="auto", **settings))
    before = state_of(trainer)
    found = run_with(trainer, {4: lambda: trainer.save(tmp_path / "last.h5")})
    assert_whole(trainer, found)
    assert not faults_of(found)
    assert not np.array_equal(before["conv1/weight"], state_of(trainer)["conv1/weight"])
    assert trainer.images >= 3 * len(trainer.training)


def test_a_run_that_overlaps_is_saved_and_gone_on_with(data, here, tmp_path):
    """What a checkpoint says was seen has been pushed and counted; nothing of it is under way."""
    config = config_of(data, workers=2, epochs=3, cluster="auto", overlap=True)
    trainer = trainer_of(config)
    with closing(trainer.records()) as records:
        for record in records:
            if isinstance(record, Step) and record.step == 5:
                assert trainer.save(tmp_path / "last.h5")
                break
    assert {tuple(sorted(count.seen.items())) for count in trainer.counts} == {
        tuple(sorted((worker, place.step) for worker, place in trainer.places.items()))}
    assert sum(place.step for place in trainer.places.values()) == trainer.step
    loaded = load_model(tmp_path / "last.h5", raw=True)
    config = configuration(loaded, tmp_path / "last.h5")
    again = type(trainer)(loaded.model, config, *open_data(config), loaded.preprocessing)
    again.restore(loaded)
    assert again.step == trainer.step >= 5
    assert again.places == trainer.places
    assert_whole(again, run_with(again, {}), first=trainer.step + 1)


def test_more_workers_than_the_cluster_has_room_for_are_refused(data, here):
    trainer = trainer_of(config_of(data, workers=5, cluster="auto"))
    with pytest.raises(InputError, match="--workers 5 of 1 thread each: the cluster's 4 CPUs have room for 4: give"):
        trained(trainer)


def test_another_cluster_than_that_of_this_process_is_refused(data, here):
    with pytest.raises(InputError, match=r"--cluster 192\.0\.2\.1:6379: this process uses the cluster at"):
        trained(trainer_of(config_of(data, cluster="192.0.2.1:6379")))


def test_other_images_on_a_node_are_told_of_with_its_name(data, here):
    trainer = trainer_of(config_of(data, cluster="auto"))
    trainer.fingerprint = "3 images of here"
    with pytest.raises(InputError, match=r"on the node \S+: --data .* images .*, where train.py was started 3 images"):
        trained(trainer)


def test_a_worker_that_dies_is_replaced(data, here):
    trainer = trainer_of(config_of(data, workers=2, epochs=3, cluster="auto", overlap=True))
    found = run_with(trainer, {4: lambda: os.kill(pid_of(trainer.fleet.hands[1]), signal.SIGKILL)})
    assert [reason.split(" (")[0] for reason in faults_of(found)] == ["worker 2 was lost"]
    assert_whole(trainer, found)


def test_a_worker_that_hangs_is_replaced(data, here):
    trainer = trainer_of(config_of(data, workers=2, epochs=3, cluster="auto", hang_timeout=3.0))
    found = run_with(trainer, {16: lambda: os.kill(pid_of(trainer.fleet.hands[0]), signal.SIGSTOP)})
    assert faults_of(found) == ["worker 1 gave no sign of life for 3 s; started again"]
    assert_whole(trainer, found)


def test_a_shard_that_dies_is_that_of_the_last_checkpoint(data, here, tmp_path):
    """It is told and counted once, and the average does not miss what the shard has lost."""
    trainer = trainer_of(config_of(data, workers=2, epochs=3, cluster="auto", averaging="tail", averaging_start=0.0,
                                   overlap=True, lr=1e-4))
    found = run_with(trainer, {4: lambda: trainer.save(tmp_path / "last.h5"),
                               9: lambda: os.kill(pid_of(trainer.fleet.shards[2]), signal.SIGKILL)})
    (reason,) = faults_of(found)
    told = re.fullmatch(r"shard 3 was lost and is that of the last checkpoint: (\d+) pushes to it are lost; started "
                        r"again", reason)
    assert told, reason
    assert 1 <= int(told[1]) <= 12
    assert trainer.restarts == 1
    assert_whole(trainer, found)
    assert_near(trainer.average.average, trainer.flat.data)


def assert_near(averaged, raw) -> None:
    """Of each shard most weights have hardly learned: their mean over the steps is what they are."""
    for own, other in zip(np.array_split(averaged, 4), np.array_split(raw, 4), strict=True):
        assert np.isfinite(own).all()
        assert np.median((own / other)[np.abs(other) > 1e-3]) == pytest.approx(1, abs=0.005)


def test_a_shard_that_hangs_is_that_of_the_last_checkpoint(data, here):
    trainer = trainer_of(config_of(data, workers=2, epochs=3, cluster="auto", hang_timeout=3.0))
    found = run_with(trainer, {16: lambda: os.kill(pid_of(trainer.fleet.shards[0]), signal.SIGSTOP)})
    (reason,) = faults_of(found)
    assert reason.startswith("shard 1 was lost and is that of the last checkpoint: ")
    assert_whole(trainer, found)


# As a user does.

def started(data, output, *more) -> subprocess.Popen:
    output.mkdir()
    return subprocess.Popen(command("train.py", "--data", data, *TINY, "--cluster", "auto", "--workers", "2",
                                    "--batch-size", "4",
                                    "--validation-fraction", "0.25", "--log-every", "1", "--save-every", "0.001",
                                    "--epochs", "1000", "--output", output, *more),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                            env=os.environ | {"RAY_ADDRESS": "local"})  # a cluster of its own


def until_it_trains(process, output, patience=120.0) -> list[int]:
    """Wait for a checkpoint of the worker's steps; return all processes of the run."""
    given_up = time.monotonic() + patience
    while time.monotonic() < given_up:
        logs = list(output.glob("*/log.csv"))
        if logs and len(logs[0].read_text().splitlines()) > 5:
            return [process.pid, *descendants(process.pid)]
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("it never began to train")


def assert_all_end(processes, patience=40.0) -> None:
    given_up = time.monotonic() + patience
    while any(map(alive, processes)) and time.monotonic() < given_up:
        time.sleep(0.1)
    assert not any(map(alive, processes)), [words_of(each) for each in processes if alive(each)]


def test_ctrl_c_finishes_the_step_and_saves(data, tmp_path):
    """Ctrl-C reaches every process of the terminal."""
    process = started(data, tmp_path / "runs")
    processes = until_it_trains(process, tmp_path / "runs")
    assert len(processes) > 5, "Ray's own, the shards' and the worker's"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    step = int(re.search(r"stopped at step (\d+), saved", out)[1])
    assert load_model(run_folder(tmp_path / "runs") / "last.h5", raw=True).attributes["step"] == step
    assert_all_end(processes)


def test_nothing_is_left_after_kill_9(data, tmp_path):
    process = started(data, tmp_path / "runs")
    processes = until_it_trains(process, tmp_path / "runs")
    process.kill()
    process.communicate()
    agents = [each for each in processes if "Agent" in words_of(each)]  # Ray's own look for its head for a minute first
    assert_all_end([each for each in processes if each not in agents])


# On several nodes.

def test_a_node_that_is_removed_costs_its_actors_only(data, environment):
    """Three local nodes, one of which goes; its workers and shards are started on the others."""
    from ray.cluster_utils import Cluster

    ray.shutdown()
    with pytest.raises(InputError, match=r"--cluster 127\.0\.0\.1:1: there is no cluster .*ray start --head"):
        trained(trainer_of(config_of(data, cluster="127.0.0.1:1")))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    try:
        trainer = trainer_of(config_of(data, workers=3, epochs=6, cluster=cluster.address))
        gone = []

        def remove():
            on = {node_of(peer) for peer in [*trainer.fleet.shards, *trainer.fleet.hands.values()]}
            assert len(on) > 1, "they are spread over the nodes"
            gone.append(next(node for node in nodes if node.node_id in on))
            cluster.remove_node(gone[0])

        found = run_with(trainer, {6: remove})
        assert faults_of(found)
        assert_whole(trainer, found)
    finally:
        with contextlib.suppress(Exception):
            ray.shutdown()
        cluster.shutdown()
