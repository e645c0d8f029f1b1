"""Where a server listens, its temporary folder, and an end in good order."""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geoaware.runs.errors import InputError
from geoaware.runs.files import draft_name, sweep


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket bound to the address, if it is this machine's and not in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot listen at {host}, port {port} ({reason}); choose another host, or another port; 0 takes "
            "one that is free",
            parameter="port",
        ) from None
    with listener:
        # Connections inherit it. Otherwise the end of an answer waits until its head is confirmed, 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


@contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """An empty folder that goes with the block; what killed servers left behind goes before it is made."""
    place = Path(tempfile.gettempdir()).resolve()
    sweep(place)
    folder = place / draft_name(name)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Ended(BaseException):
    """The process was asked to end before there was a server to end."""


class Ending:
    """Lets a signal end the block, in good order, instead of the process: ``server``, once there is one."""

    server: Any = None
    _asked = False

    def __enter__(self) -> Ending:
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        self._before = {number: signal.signal(number, self._end) for number in numbers}
        return self

    def _end(self, number: int, frame: object) -> None:
        """Only the first signal does anything: the tidying up is not interrupted."""
        first, self._asked = not self._asked, True
        if self.server is not None:
            self.server.should_exit = True
        elif first:
            raise _Ended

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        return kind is _Ended


def url_of(host: str, port: int) -> str:
    """An address that a browser on this machine can open."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
