"""The engine of actors, on a real cluster of three nodes on this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from geoaware.apps.pose.inputs import read_images
from geoaware.apps.pose.run import PoseWork, predict_poses
from geoaware.apps.pose.templates import DIRECTIONS, read_template_sets
from geoaware.apps.transfer import transfer
from geoaware.data.images import list_images
from geoaware.evaluation.predict import predict
from geoaware.matcher import Matcher
from geoaware.runs import cluster
from geoaware.runs.cluster import Ray
from geoaware.runs.errors import InputError, MissingDependencyError
from geoaware.runs.places import is_remote
from geoaware.runs.work import batched
from geoaware.store.extraction import extract, survey
from geoaware.store.feature_store import FeatureStore
from tests.evaluation.tiny import Sided
from tests.runs import ray_program as program
from tests.runs.test_work import Crowded, Squares, fail_at_three
from tests.store.toy_extraction import Toy, photos, snapshot

ROOT = Path(__file__).resolve().parents[2]
WAIT = 240.0
SLOWLY = 0.15  # seconds an image at least, in a run that is to be killed before it ends

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra cluster (Ray) is not installed")


@dataclass
class Nodes:
    """A head and two more nodes, with room for an actor each."""

    inner: Any
    others: list[Any]

    @property
    def address(self) -> str:
        return str(self.inner.address)

    def actors(self) -> list[int]:
        """Processes of this cluster that do batches."""
        raylets = {
            each.process.pid
            for node in [self.inner.head_node, *self.others]
            for each in node.all_processes["raylet"]
        }
        return [pid for pid, parent, name in processes() if parent in raylets and name.startswith("ray::Map")]

    def lose_a_node(self) -> None:
        self.inner.remove_node(self.others.pop(), allow_graceful=False)


def processes() -> Iterator[tuple[int, int, str]]:
    for folder in Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            name = (folder / "cmdline").read_bytes().decode(errors="replace")
        except (OSError, IndexError):
            continue
        if folder.name.isdigit():
            yield int(folder.name), parent, name


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with running() as started:
        yield started


@contextmanager
def running() -> Iterator[Nodes]:
    """A cluster, whose nodes have the environment of this process."""
    if find_spec("ray") is None:
        pytest.skip("the extra cluster (Ray) is not installed")
    if not Path("/proc/self/stat").exists():
        pytest.skip("actors are found in /proc")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
        patch.delenv("RAY_ADDRESS", raising=False)
        import ray
        from ray.cluster_utils import Cluster

        options = {"num_cpus": 1, "object_store_memory": 80 << 20}
        started = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
        others = [started.add_node(wait=False, **options) for _ in range(2)]
        started.wait_for_nodes()
        yield Nodes(started, others)
        ray.shutdown()
        started.shutdown()


def until(condition: Callable[[], bool]) -> None:
    patience = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.05)


class Driver:
    """A program that has work done on a cluster, and how much of it is done."""

    def __init__(self, what: str, out: Path, nodes: Nodes, pace: float) -> None:
        self.part = out.with_name(f"{out.name}.part")
        command = [sys.executable, "-m", program.__name__, "work", what, str(out.parent), out.name]
        self.process = subprocess.Popen(
            [*command, nodes.address, str(pace)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def done(self) -> int:
        """How many lines there are of what is done, in a file or in objects."""
        files = self.part.glob("*.jsonl") if is_remote(self.part) else [self.part]
        return sum(each.read_bytes().count(b"\n") for each in files if each.exists())

    def until(self, condition: Callable[[], bool]) -> None:
        def met() -> bool:
            there = condition()
            assert there or self.process.poll() is None, self.process.communicate()
            return there

        until(met)

    def until_done(self, count: int) -> None:
        self.until(lambda: self.done > count)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def ended(self, code: int = 0) -> str:
        """What it said on standard error."""
        out, said = self.process.communicate(timeout=WAIT)
        assert self.process.returncode == code, out + said
        assert not out
        return said


@needs_ray
@pytest.mark.long
def test_actors_a_driver_and_a_node_are_killed_on_the_way(tmp_path: Path, nodes: Nodes) -> None:
    """A transfer of 300 images comes out as one process writes it."""
    program.write_images(tmp_path)
    out, alone = tmp_path / "out.json", tmp_path / "alone.json"
    driver = Driver("transfer", out, nodes, SLOWLY)
    driver.until_done(20)
    os.kill(nodes.actors()[0], signal.SIGKILL)
    driver.until_done(60)
    driver.kill()
    kept = driver.done
    assert 60 < kept < 300
    driver = Driver("transfer", out, nodes, SLOWLY)
    driver.until_done(kept + 20)
    nodes.lose_a_node()
    driver.until(lambda: bool(nodes.actors()))
    os.kill(nodes.actors()[0], signal.SIGKILL)
    assert driver.ended() == ""
    transfer(*program.transfer_of(tmp_path), alone)
    assert out.read_bytes() == alone.read_bytes()
    assert not driver.part.exists()


@needs_ray
@pytest.mark.long
def test_a_prediction_is_interrupted_and_goes_on(tmp_path: Path, nodes: Nodes) -> None:
    """An interruption is one line and ends the actors; the result is as one process writes it."""
    program.write_images(tmp_path)
    out, alone = tmp_path / "out.jsonl", tmp_path / "alone.jsonl"
    driver = Driver("predict", out, nodes, SLOWLY)
    driver.until_done(40)
    driver.process.send_signal(signal.SIGINT)
    assert driver.ended(130) == "interrupted; run the same command again to go on\n"
    assert 40 < driver.done < 300
    until(lambda: not nodes.actors())
    driver = Driver("predict", out, nodes, SLOWLY / 3)
    driver.until(lambda: len(nodes.actors()) > 1)
    os.kill(nodes.actors()[1], signal.SIGKILL)
    assert driver.ended() == ""
    predict(*program.prediction_of(tmp_path), alone)
    assert out.read_bytes() == alone.read_bytes()


@needs_ray
@pytest.mark.long
def test_poses_and_stored_features_are_those_of_one_process(tmp_path: Path, nodes: Nodes) -> None:
    folder, engine = photos(tmp_path / "photos", 20), Ray(nodes.address, workers=1)
    templates = photos(tmp_path / "sets" / "a", 4, (60, 60))
    for path, pose in zip(sorted(templates.iterdir()), DIRECTIONS, strict=True):
        path.rename(templates / f"{pose}.png")
    sets = {"": read_template_sets(templates.parent)}
    work = PoseWork(Matcher(Sided()), sets, read_images([folder]))
    here, there = tmp_path / "here", tmp_path / "there"
    for place, used in ((here, None), (there, engine)):
        predict_poses(work, place / "poses.json", engine=used)
        store = FeatureStore.of(place, Toy())
        store.prepare()
        found = survey(list_images(folder), ("identity",), store)
        assert extract(found, Toy(), store, batch=1, engine=used) == 20
    assert (there / "poses.json").read_bytes() == (here / "poses.json").read_bytes()
    assert snapshot(there) == snapshot(here)


@needs_ray
@pytest.mark.long
def test_a_batch_that_does_not_fit_the_memory_is_halved_and_said(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Ray(nodes.address, workers=1)
    found = list(engine.results(Crowded(2), batched(64, 4)))
    assert sorted(found, key=lambda each: each[0].start) == [(each, list(each)) for each in batched(64, 4)]
    assert [each.getMessage() for each in caplog.records if each.name.startswith("geoaware")] == [
        "a batch of 4 did not fit the memory: going on with 2"
    ]


@needs_ray
@pytest.mark.long
def test_errors_of_actors_come_back(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, many = Ray(nodes.address, workers=1), batched(40, 1)
    with pytest.raises(InputError, match=r"^item 3 cannot be squared$") as caught:
        list(engine.results(Squares(act=fail_at_three), many))
    assert caught.value.parameter == "items"
    # A module that this process finds and the nodes do not.
    (tmp_path / "only_here.py").write_text("def act(item):\n    return item\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here  # type: ignore[import-not-found]

    with pytest.raises(InputError, match="a node of the cluster lacks the package 'only_here'; install"):
        list(engine.results(Squares(act=only_here.act), many))
    with pytest.raises(MissingDependencyError, match=r"pip install 'geoaware\[sd\]' \(on every node"):
        list(engine.results(Squares(act=lacks_diffusers), many))
    real = cluster._versions()
    monkeypatch.setattr(cluster, "_versions", lambda: {**real, "torch": "1.0"})
    with pytest.raises(InputError, match=re.escape(f"has torch {real['torch']}, not 1.0; install")):
        list(engine.results(Squares(), many))
    until(lambda: not nodes.actors())


def lacks_diffusers(item: int) -> None:
    raise MissingDependencyError("the package 'diffusers' is not installed: pip install 'geoaware[sd]'")


@needs_ray
@pytest.mark.long
def test_a_run_without_any_result_ends(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "IDLE", 0.6)
    with pytest.raises(
        InputError, match=r"nothing was finished in 0\.01 minutes: .*; the same command again"
    ):
        list(Ray(nodes.address, workers=1).results(Squares(act=sleep), batched(40, 1)))


def sleep(item: int) -> None:
    time.sleep(600)


@needs_ray
@pytest.mark.long
def test_what_cannot_be_done_is_said_before_the_work(nodes: Nodes) -> None:
    engine, many = Ray(nodes.address, workers=1), batched(40, 1)
    lock = threading.Lock()
    with pytest.raises(InputError, match=r"the work cannot be sent to a cluster .*lock"):
        list(engine.results(Squares(act=partial(holding, lock)), many))
    with pytest.raises(InputError, match="the work was prepared for the CPU") as caught:
        list(Ray(nodes.address, gpus_per_worker=0.5).results(Squares(), many))
    assert caught.value.parameter == "gpus_per_worker"
    with pytest.raises(InputError, match=r"no actor finds 1 GPUs on this cluster"):
        list(Ray(nodes.address).results(Squares("cuda"), many))


def holding(lock: Any, item: int) -> None:
    raise AssertionError


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        MissingDependencyError, match=r"'ray' is not installed: pip install 'geoaware\[cluster\]'"
    ):
        Ray()


def test_what_ray_says_is_cut_to_what_helps() -> None:
    death = RuntimeError("The actor died\n  File x\nModuleNotFoundError: No module named 'geoaware'\n")
    assert str(cluster._explained(death)) == (
        "a node of the cluster lacks the package 'geoaware'; install there what is installed here"
    )
    death = RuntimeError("The object was lost.\n\nits owner has died")
    assert str(cluster._explained(death)) == (
        "the cluster cannot do the work (its owner has died); the same command again goes on"
    )


@needs_ray
def test_addresses_where_no_cluster_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", None)
    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        refused(f"{place}: no Ray cluster answers there (timed out)", place)
    refused(f"{place}: no Ray cluster answers there (connection refused)", place)
    for wrong in ("here", "ray://127.0.0.1:10001", "127.0.0.1:x", ":1", "h:70000"):
        refused(f"'{wrong}' is no address of a cluster; give auto or HOST:PORT", wrong)
    monkeypatch.setenv("RAY_ADDRESS", place)
    refused(f"{place}: no Ray cluster answers there (connection refused)", "auto")


def refused(message: str, address: str) -> None:
    with pytest.raises(InputError) as caught:
        Ray(address)
    assert str(caught.value) == message
    assert caught.value.parameter == "address"


@needs_ray
def test_this_machine_is_part_of_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def none(*_: Any, **__: Any) -> None:
        raise ConnectionError(
            "Could not find any running Ray instance. Please specify the one to connect to."
        )

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", none)
    refused(
        "no Ray cluster runs on this machine: start a head with Ray's own program, or work without "
        "(engine local)",
        "auto",
    )


@needs_ray
def test_numbers_that_make_no_sense() -> None:
    for given in ({"workers": 0}, {"gpus_per_worker": -1.0}, {"gpus_per_worker": float("nan")}):
        with pytest.raises(InputError) as caught:
            Ray(**given)  # type: ignore[arg-type]
        assert [caught.value.parameter] == list(given)


def test_groups_are_small_enough_for_all_actors_to_end_together() -> None:
    def sizes(count: int, batch: int, workers: int) -> set[int]:
        groups = list(cluster._groups(batched(count, batch), workers))
        assert [each for group in groups for one in group for each in one] == list(range(count))
        return {sum(map(len, group)) for group in groups}

    assert sizes(20, 1, 2) == {1}
    assert sizes(640, 1, 2) == {10}
    assert sizes(1 << 14, 1, 2) == {cluster.GROUP}
    assert sizes(160, 8, 1) == {8}
    assert sizes(21, 8, 100) == {8, 5}
    assert sizes(0, 1, 2) == set()
