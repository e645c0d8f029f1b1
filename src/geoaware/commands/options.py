"""Options that several commands share, and reading of ``--set key=value``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.method.alignment import PoseRule

ExtractorName = Annotated[
    str, typer.Option("--extractor", help="Name of the features; `geoaware info` lists them.")
]
PostProcessorPlace = Annotated[
    str,
    typer.Option(
        "--post-processor",
        metavar="PLACE",
        help="What makes the features geometry-aware: a folder that `geoaware train` wrote, a released .PTH "
        "file, or none; auto: the one shipped with `lite`, none for other extractors.",
    ),
]
Blend = Annotated[
    float | None,
    typer.Option(
        "--blend",
        metavar="SHARE",
        help="Of the post-processor's features, 0 (none) to 1 (they alone); as measured if not given.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option("--dtype", help="fp32, bf16 or fp16.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the extractor; may be repeated."),
]

ConfigSettings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value, by its dotted key; may be repeated."),
]

RestartRun = Annotated[
    bool, typer.Option("--restart", help="Throw away what an earlier run left in the folder.")
]

PoseRuleText = Annotated[
    str | None,
    typer.Option(
        "--pose-rule",
        help="How the pose is chosen: mutual-nn, imd, or with a margin imd:0.01; as measured if not given.",
    ),
]


def parse_pose_rule(text: str | None) -> PoseRule | None:
    """The rule named, or ``None`` for the extractor's own."""
    from geoaware.method.alignment import PoseRule

    return None if text is None else PoseRule.parse(text)


def parse_settings(given: list[str] | None) -> dict[str, Any]:
    """``["canvas=448", "weights=folder"]`` to a dictionary; values are read as YAML.

    Raises:
        InputError: an item is not KEY=VALUE.
    """
    import yaml

    settings: dict[str, Any] = {}
    for item in given or []:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set {item!r} is not of the form key=value")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            parsed = value
        settings[key.strip()] = tuple(parsed) if isinstance(parsed, list) else parsed
    return settings
