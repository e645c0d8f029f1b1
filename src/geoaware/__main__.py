"""The program: ``geoaware``, or ``python -m geoaware``. An interruption is one line from the first moment."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from types import FrameType

from geoaware.runs.errors import INTERRUPTED, interrupted_code


def main() -> None:
    """Run the command line, and end without the half second that taking torch apart would need."""
    try:
        _run()
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        _end(ended.code or 0)
    _end(0)


def _end(code: int) -> None:
    """End as the interpreter does, up to where it would free its memory piece by piece."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # nobody listens: the interpreter knows what to say
        sys.exit(code)
    os._exit(code)


def _run() -> None:
    """Ctrl-C and SIGTERM end it alike, but for the exit code."""
    # Threads that wait for each other sleep instead of spinning: on a machine with other work, spinning makes
    # two threads take many times as long as one. It is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    heard = [each for each, handler in usual.items() if signal.getsignal(each) is handler]  # not under nohup
    try:
        for each in heard:
            signal.signal(each, _interrupt)
        from geoaware import cli

        cli.main()
    except KeyboardInterrupt as error:
        sys.stderr.write(INTERRUPTED)
        sys.exit(interrupted_code(error))
    finally:
        for each in heard:
            # Whoever interrupts the end as well need not read where it was.
            signal.signal(each, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise the usual exception, but end at once while a module is loaded: torch would catch it."""
    stopped = KeyboardInterrupt(number)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, INTERRUPTED.encode())
            os._exit(interrupted_code(stopped))
        frame = frame.f_back
    raise stopped


if __name__ == "__main__":
    main()
