"""Images, annotations and result on an S3 server, the work on a cluster."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from geoaware.apps.transfer import transfer
from tests import s3
from tests.runs import ray_program as program
from tests.runs.test_cluster import SLOWLY, Driver, needs_ray, running


@needs_ray
@pytest.mark.long
def test_an_actor_and_the_driver_are_killed_on_the_way(tmp_path: Path) -> None:
    """A transfer of 300 images comes out as one process writes it on this machine."""
    transfer(*program.transfer_of(program.write_images(tmp_path)), tmp_path / "alone.json")
    with s3.served():
        s3.upload(tmp_path / "images", s3.url("in/images"))
        s3.upload(tmp_path / "sources", s3.url("in/sources"))
        out = s3.url("in/out.json")
        with running() as nodes:
            driver = Driver("transfer", out, nodes, SLOWLY)
            driver.until(lambda: bool(nodes.actors()) and driver.part.exists())
            os.kill(nodes.actors()[0], signal.SIGKILL)
            driver.until_done(20)
            driver.kill()
            assert 20 < driver.done < program.COUNT
            assert not out.exists()
            driver = Driver("transfer", out, nodes, 0.0)
            driver.ended()
        assert out.read_bytes() == (tmp_path / "alone.json").read_bytes()
        assert not driver.part.exists()
