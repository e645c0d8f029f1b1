"""``geoaware info``: what is installed, which extractors there are and whether they can run here."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated, Any

import typer

_PACKAGES = ("geoaware", "torch", "transformers", "pillow", "numpy")


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show versions, the device that would be used, and the extractors.

    Example: geoaware info
    """
    facts = _facts()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print("  ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    console.print(f"python {facts['python']}  device {facts['device']}")
    table = Table("extractor", "about", "here", title="Extractors", title_justify="left")
    for name, line in facts["extractors"].items():
        table.add_row(name, line["about"], line["here"])
    console.print(table)


def _facts() -> dict[str, Any]:
    from geoaware.features import EXTRACTORS, choose_device

    return {
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "device": str(choose_device()),
        "extractors": {
            name: {"about": entry.about, "here": _state(entry.needs, entry.extra)}
            for name, entry in EXTRACTORS.items()
        },
    }


def _state(needs: tuple[str, ...], extra: str | None) -> str:
    if all(find_spec(module) for module in needs):
        return "ready" if extra else "needs its weights"
    return f"pip install 'geoaware[{extra}]'"
