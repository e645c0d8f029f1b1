"""The program: ``geoaware``, or ``python -m geoaware``. An interruption is one line from the first moment."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from geoaware.runs.errors import INTERRUPTED


def main() -> None:
    """Run the command line."""
    # Threads that wait for each other sleep instead of spinning: on a machine with other work, spinning makes
    # two threads take many times as long as one. It is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not under nohup
    try:
        if heard:
            signal.signal(signal.SIGINT, _interrupt)
        from geoaware import cli

        cli.main()
    except KeyboardInterrupt:
        sys.stderr.write(INTERRUPTED)
        sys.exit(130)
    finally:
        if heard:
            # Whoever interrupts the end as well need not read where it was.
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Raise the usual exception, but end at once while a module is loaded: torch would catch it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, INTERRUPTED.encode())
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
