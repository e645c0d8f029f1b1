"""``geoaware info``: what is installed, which extractors there are and whether they can run here."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from geoaware.commands.options import expand
from geoaware.runs.errors import InputError

_PACKAGES = ("geoaware", "torch", "transformers", "pillow", "numpy")


@expand
def info(
    as_json: Annotated[bool, Option("--json", help="Print as JSON.")] = False,
    convert: Annotated[
        Path | None,
        Option(
            "--convert-captioner",
            metavar="FILE",
            help="Instead, take the implicit captioner for sd15 out of an ODISE checkpoint.",
        ),
    ] = None,
    out: Annotated[Path | None, Option(help="Where the captioner goes; beside FILE if not given.")] = None,
) -> None:
    """Show versions, the device that would be used, the extractors and the post-processors that are shipped.

    Examples:

    geoaware info

    geoaware info --convert-captioner odise_label_coco_50e-b67d2efc.pth --out captioner.safetensors
    """
    if convert is not None:
        from geoaware.features.captioner import convert_captioner

        written = convert_captioner(convert, out)
        typer.echo(f"{written}: use it with --extractor sd15 --set captioner={written}")
        return
    if out is not None:
        raise InputError("--out goes with --convert-captioner FILE")
    facts = _facts()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False)
    console.print("  ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    console.print(f"python {facts['python']}  device {facts['device']}")
    table = Table("extractor", "about", "here", title="Extractors", title_justify="left")
    for name, line in facts["extractors"].items():
        table.add_row(name, line["about"], line["here"])
    console.print(table)
    for name, line in facts["post_processors"].items():
        console.print(
            f"post-processor {name}: {line['parameters']:,} parameters, blend {line['blend']:g}, for "
            f"{line['extractor'].partition('(')[0]}",
            highlight=False,
        )


def _facts() -> dict[str, Any]:
    from geoaware.features import EXTRACTORS, choose_device

    extractors = {}
    for name, entry in EXTRACTORS.items():
        here = f"pip install 'geoaware[{entry.extra}]'"
        if all(find_spec(module) for module in entry.needs):
            here = "ready" if entry.has_weights else "needs its weights"
        extractors[name] = {"about": entry.about, "here": here}
    return {
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "device": str(choose_device()),
        "extractors": extractors,
        "post_processors": _shipped(),
    }


def _shipped() -> dict[str, dict[str, Any]]:
    """By name: number of parameters, identity of the extractor, the blend that is taken if none is given."""
    from geoaware.features.refined import load_post_processor, shipped
    from geoaware.presets import defaults_of

    found = {}
    for name, folder in shipped().items():
        network = load_post_processor(folder)
        extractor = network.info.get("extractor", "unknown")
        found[name] = {
            "parameters": sum(each.numel() for each in network.parameters()),
            "extractor": extractor,
            "blend": defaults_of(extractor, network).blend,
        }
    return found
