"""Errors that are the caller's to mend; the command line turns them into one line and exit code 2."""

from __future__ import annotations

import re
import signal

_LONG = re.compile(r"(?<!\w)('[^'/]{79,}'|\"[^\"/]{79,}\"|'[^']{300,}'|\"[^\"]{300,}\")(?!\w)")
"""Texts of more than 80 characters that a message quotes; paths may be longer, since their ends count."""

_OF_PYTHON = (TypeError, AttributeError, LookupError, ArithmeticError, AssertionError)
_OF_NUMBERS = re.compile("invalid literal for|could not convert|cannot convert|Exceeds the limit")
"""What `int` and `float` say in a `ValueError`, which else is of the library."""

INTERRUPTED = "interrupted; run the same command again to go on\n"
"""What the program says last when the user stops it."""


def interrupted_code(error: BaseException) -> int:
    """The exit code after an interruption, by the signal that it carries: 130 for Ctrl-C, 143 for SIGTERM."""
    number = error.args[0] if error.args else None
    return 128 + (number if isinstance(number, int) else signal.SIGINT)


class InputError(ValueError):
    """Something given by the user (a file, a point, a name) cannot be used; the message says what to do.

    Attributes:
        parameter: name of the Python parameter that mends it, if one does (``"restart"``). The message does
            not spell it as a flag; the command line adds it as one (``--restart``).

    Quoted texts are cut in the message: what comes from a file may be of any length.
    """

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(_LONG.sub(lambda found: shortened(found[0]), message))
        self.parameter = parameter


class NotFiniteError(RuntimeError):
    """Features, or what was computed from them, are NaN or infinite; another dtype may help."""


class MissingDependencyError(ImportError):
    """A package that an extra installs is absent; the message names the extra."""


def stop(_: str, error: Exception) -> None:
    """What is done about a file that fails, given its name, where nothing else is asked for."""
    raise error


def reason(error: Exception) -> str:
    """Why something cannot be read, for a message; what Python says to programmers is put in plain words."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is not {error.encoding.upper()}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, KeyError):
        return f"{quoted(error.args[0])} is missing" if error.args else "something is missing"
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    if not text or isinstance(error, _OF_PYTHON) or _OF_NUMBERS.match(text):
        return "a value is of the wrong kind"
    return shortened(text, 160)


def shortened(text: str, width: int = 80) -> str:
    """A text that is quoted in a message, cut in the middle where it is longer than ``width``."""
    return text if len(text) <= width else f"{text[: width - 21]}…{text[-20:]}"


def quoted(value: object) -> str:
    """A value of any kind as a message quotes it."""
    return shortened(repr(value))
