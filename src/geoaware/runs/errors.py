"""Errors that are the caller's to mend; the command line turns them into one line and exit code 2."""

from __future__ import annotations

INTERRUPTED = "interrupted; run the same command again to go on\n"
"""What the program says last when the user stops it."""


class InputError(ValueError):
    """Something given by the user (a file, a point, a name) cannot be used; the message says what to do.

    Attributes:
        parameter: name of the Python parameter that mends it, if one does (``"restart"``). The message does
            not spell it as a flag; the command line adds it as one (``--restart``).
    """

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class MissingDependencyError(ImportError):
    """A package that an extra installs is absent; the message names the extra."""


def shortened(text: str, width: int = 80) -> str:
    """A text that is quoted in a message, cut in the middle where it is longer than ``width``."""
    return text if len(text) <= width else f"{text[: width - 21]}…{text[-20:]}"
