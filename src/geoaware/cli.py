"""The command line: registers the commands and turns errors into one line and an exit code.

Exit codes: 0 done, 1 failed while working, 2 wrong usage or input.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Annotated, Any

import typer

from geoaware._version import __version__
from geoaware.commands import (
    ablation,
    data,
    demo,
    evaluate,
    examples,
    extract,
    gallery,
    info,
    match,
    pose,
    reproduce,
    train,
    transfer,
    tune,
)
from geoaware.runs.errors import InputError, MissingDependencyError, shortened

app = typer.Typer(
    name="geoaware",
    help="Find the same points of one object on another, in another photograph, and tell left from right.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
)
for command in (
    match.match,
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
    transfer.transfer,
):
    app.command()(command)
app.add_typer(data.app, name="data")


_LONGEST = 260
"""More characters than a part of a path can have."""

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
    # What the library has to tell goes to standard error, a line each.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logger = logging.getLogger("geoaware")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def main() -> None:
    """Run the command line; every error is one or two lines on standard error."""
    global _debug
    _debug = False
    try:
        app()
    except InputError as error:
        _fail(error, f"{error}{_flag(error.parameter)}", code=2)
    except MissingDependencyError as error:
        _fail(error, str(error), code=2)
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to go on", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        what = " ".join(str(error).split()) or type(error).__name__
        _fail(error, f"failed while working: {what} ({type(error).__name__}; --debug shows where)", code=1)


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
    typer.echo(f"error: {_cut(message)}", err=True)
    sys.exit(code)


def _cut(message: str) -> str:
    """The message with long arguments that it repeats, and other long words, cut to about 80 characters."""
    for given in (part for word in sys.argv[1:] for part in (word, word.partition("=")[2])):
        for text in (given, repr(given)[1:-1]):
            message = message.replace(text, shortened(text)) if len(text) > _LONGEST else message
    return re.sub(rf"[^\s/]{{{_LONGEST},}}", lambda word: shortened(word[0]), message)


if __name__ == "__main__":
    main()
