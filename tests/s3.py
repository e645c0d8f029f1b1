"""An S3 server on loopback, with a bucket."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.request import Request, urlopen

from geoaware.runs.places import place

BUCKET = "photos"


@contextmanager
def served() -> Iterator[None]:
    """A server, and an environment in which programs find it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    # Servers of one process share what they hold; each begins empty.
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    with mock.patch.dict(os.environ, environment):
        try:
            client().create_bucket(Bucket=BUCKET)
            yield
        finally:
            forget()
            server.stop()


def client() -> Any:
    """Of the server, beside fsspec."""
    import boto3

    return boto3.client("s3")


def forget() -> None:
    """Have the next access read the environment anew."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


def upload(folder: Path, goal: Path) -> None:
    """All files of a folder, to a URL."""
    for each in sorted(folder.rglob("*")):
        if each.is_file():
            (goal / each.relative_to(folder).as_posix()).write_bytes(each.read_bytes())


def url(name: str) -> Path:
    """Of something in the bucket."""
    return place(f"s3://{BUCKET}/{name}")
