"""Images, annotations and result on an S3 server, the work on a cluster."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from geoaware.apps.transfer import transfer
from tests import s3
from tests.runs import ray_program as program
from tests.runs.test_cluster import SLOWLY, ended, needs_ray, running, start, until


def done(part: Path) -> int:
    """How many lines of objects there are."""
    objects = [each for each in part.sizes() if each.suffix == ".jsonl"]  # type: ignore[attr-defined]
    return sum(each.read_bytes().count(b"\n") for each in objects)


@needs_ray
@pytest.mark.long
def test_an_actor_and_the_driver_are_killed_on_the_way(tmp_path: Path) -> None:
    """A transfer of 300 images comes out as one process writes it on this machine."""
    transfer(*program.transfer_of(program.write_images(tmp_path)), tmp_path / "alone.json")
    with s3.served():
        s3.upload(tmp_path / "images", s3.url("in/images"))
        s3.upload(tmp_path / "sources", s3.url("in/sources"))
        out = s3.url("in/out.json")
        part = out.with_name("out.json.part")
        with running() as nodes:
            driver = start("transfer", out.parent, out.name, nodes.address, SLOWLY)
            until(lambda: bool(nodes.actors()) and part.exists(), driver)
            os.kill(nodes.actors()[0], signal.SIGKILL)
            until(lambda: done(part) > 20, driver)
            driver.kill()
            driver.communicate()
            assert 20 < done(part) < program.COUNT
            assert not out.exists()
            driver = start("transfer", out.parent, out.name, nodes.address, 0.0)
            ended(driver)
        assert out.read_bytes() == (tmp_path / "alone.json").read_bytes()
        assert not part.exists()
