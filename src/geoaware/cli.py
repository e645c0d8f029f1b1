"""The command line: registers the commands and turns errors into one line and an exit code.

Exit codes: 0 done, 1 failed while working, 2 wrong usage or input.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from geoaware._version import __version__
from geoaware.commands import (
    ablation,
    data,
    demo,
    dense,
    evaluate,
    examples,
    extract,
    gallery,
    info,
    match,
    pose,
    reproduce,
    review,
    serve,
    train,
    transfer,
    tune,
)
from geoaware.commands.options import cut
from geoaware.runs.errors import (
    INTERRUPTED,
    InputError,
    MissingDependencyError,
    interrupted_code,
    shortened,
)


class _Group(TyperGroup):
    """Cuts long arguments in what is said about wrong usage, and lets interruptions through."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Of the words before the command's name."""
        with _mended():
            return super().make_context(*args, **extra)

    def invoke(self, *args: Any) -> Any:
        """Of the command's own words."""
        with _mended():
            return super().invoke(*args)


class _Interrupted(BaseException):
    """Stands for `KeyboardInterrupt`, for which typer has a line and an exit code of its own."""


@contextmanager
def _mended() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise _Interrupted(*error.args) from None
    except Exception as error:
        if hasattr(error, "format_message"):  # of typer
            vars(error)["message"] = cut(str(vars(error)["message"]))
        raise


app = typer.Typer(
    name="geoaware",
    cls=_Group,
    help="Find the same points of one object on another, in another photograph, and tell left from right.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
)
for command in (
    match.match,
    dense.dense,
    dense.warp,
    info.info,
    evaluate.evaluate,
    evaluate.predict,
    evaluate.score,
    examples.examples,
    extract.extract,
    train.train,
    tune.tune,
    ablation.ablation,
    gallery.gallery,
    pose.pose,
    reproduce.reproduce,
    demo.demo,
    serve.serve,
    transfer.transfer,
    review.review,
):
    app.command()(command)
app.add_typer(data.app, name="data")


_debug = False
"""Whether errors show their traceback; set by ``--debug``, read once a command has failed."""


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"geoaware {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command, before its name."""
    global _debug
    _debug = debug
    if not debug and not sys.warnoptions:
        # Libraries warn programmers, of damaged images say, which are errors here where it matters.
        warnings.simplefilter("ignore")
    # What the library has to tell goes to standard error, a line each.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logger = logging.getLogger("geoaware")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def main() -> None:
    """Run the command line; every error is one or two lines on standard error."""
    global _debug
    try:
        _debug = False
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # Names of files may be bytes that are no text; they are shown, whatever they are.
                stream.reconfigure(errors="backslashreplace")
        _refuse_empty(sys.argv[1:])
        app()
    except InputError as error:
        _fail(error, f"{error}{_flag(error.parameter)}", code=2)
    except MissingDependencyError as error:
        _fail(error, str(error), code=2)
    except (KeyboardInterrupt, _Interrupted) as error:
        typer.echo(INTERRUPTED, err=True, nl=False)
        sys.exit(interrupted_code(error))
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if (said := _about_path(error)) is not None:
            _fail(error, said, code=2)
        from geoaware.runs.work import is_out_of_memory  # not before: it brings torch

        if is_out_of_memory(error):
            said = "not enough memory; choose smaller settings (batch, canvas, size), or close other programs"
            _fail(error, said, code=1)
        if isinstance(error, OSError) and error.strerror:  # a full disk, say
            _fail(error, f"failed while working: {error.strerror.lower()} (--debug shows where)", code=1)
        what = " ".join(str(error).split()) or type(error).__name__
        _fail(error, f"failed while working: {what} ({type(error).__name__}; --debug shows where)", code=1)


def _about_path(error: Exception) -> str | None:
    """What is wrong with the path that the system refused; ``None`` for any other error."""
    if isinstance(error, ValueError) and "has an empty name" in str(error):  # pathlib, of . and /
        return "the folder . or / is no file; give the name of one"
    number, name = getattr(error, "errno", None), getattr(error, "filename", None)
    if isinstance(error, UnicodeEncodeError) or number == errno.ENAMETOOLONG:
        given = str(name or getattr(error, "object", ""))
        return f"{shortened(given)}: no file can have this name; it is too long or no text"
    if not isinstance(error, OSError) or not isinstance(name, str | bytes | os.PathLike):
        return None
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE):
        return None  # not of this path
    why = (error.strerror or "cannot be used").lower()
    return f"{os.fsdecode(name)}: {why}; look at the path and its permissions"


def _refuse_empty(words: list[str]) -> None:
    """Refuse values without a character, which would pass for the present folder."""
    for before, word in pairwise(["geoaware", *words]):
        option, equals, value = word.partition("=")
        if not word or (word.startswith("--") and equals and not value):
            raise InputError(f"an empty value follows {option or before}; give one, or leave it out")


def _flag(parameter: str | None) -> str:
    """The flag of a parameter as the command that ran spells it; nothing if it has none."""
    group = typer.main.get_command(app)
    commands: dict[str, Any] = getattr(group, "commands", {})
    # The options before a command's name take no values, so the first other word is the name.
    ran = commands.get(next((word for word in sys.argv[1:] if not word.startswith("-")), ""), group)
    parts = [ran, *getattr(ran, "commands", {}).values()]
    flags = [option.opts[0] for part in parts for option in part.params if option.name == parameter]
    return next((f" ({flag})" for flag in flags if flag.startswith("--")), "")


def _fail(error: Exception, message: str, code: int) -> None:
    if _debug:
        raise error
    typer.echo(f"error: {cut(message)}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
