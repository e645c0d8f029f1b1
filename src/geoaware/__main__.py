"""The program: ``geoaware``, or ``python -m geoaware``. An interruption is one line from the first moment."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from geoaware.runs.errors import INTERRUPTED


def main() -> None:
    """Run the command line."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not under nohup
    try:
        if heard:
            # Code that is being imported may catch the usual exception, or make another one of it.
            signal.signal(signal.SIGINT, _stop)
        from geoaware import cli

        if heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        cli.main()
    except KeyboardInterrupt:
        sys.stderr.write(INTERRUPTED)
        sys.exit(130)
    finally:
        if heard:
            # Whoever interrupts the end as well need not read where it was.
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _stop(*_: object) -> NoReturn:
    os.write(2, INTERRUPTED.encode())
    os._exit(130)


if __name__ == "__main__":
    main()
