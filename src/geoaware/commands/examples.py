"""``geoaware examples``: photographs that installed packages carry, to try things on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument

from geoaware.commands.options import expand, say
from geoaware.runs.errors import InputError, MissingDependencyError


@dataclass(frozen=True)
class Example:
    """A photograph inside an installed package."""

    module: str
    package: str
    inside: str
    about: str

    @property
    def path(self) -> Path | None:
        """Where it lies, or ``None`` when the package is not installed or no longer carries it."""
        spec = find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            return None
        path = Path(spec.submodule_search_locations[0]) / self.inside
        return path if path.is_file() else None


EXAMPLES = (
    Example("gradio", "gradio", "media_assets/images/cheetah.jpg", "a running cheetah, from its right side"),
    Example("gradio", "gradio", "media_assets/images/cheetah1.jpg", "a cheetah's face"),
    Example("gradio", "gradio", "test_data/cheetah2.jpg", "a cheetah cub's face"),
    Example("gradio", "gradio", "media_assets/images/lion.jpg", "a lion lying on a rock"),
    Example("skimage", "scikit-image", "data/chelsea.png", "a cat's face"),
)

FACES = (EXAMPLES[1], EXAMPLES[2])
EYES_AND_EARS = ((88.0, 93.0), (161.0, 93.0), (40.0, 60.0), (208.0, 56.0))
"""Two of these that face the camera, and pixels of the first: right eye, left eye, right ear, left ear."""

_FIRST = "Photographs copied from installed packages; their own licences apply."


@expand
def examples(
    folder: Annotated[Path, Argument(help="Where to copy the photographs; made if it is not there.")],
) -> None:
    """Copy example photographs out of installed packages, with a note of where each comes from.

    Example: geoaware examples photos
    """
    from geoaware.runs.files import check_own, replacing

    found = [(example, example.path) for example in EXAMPLES]
    copied = [(example, path) for example, path in found if path is not None]
    if not copied:
        raise MissingDependencyError(
            "no example photographs here; they come with: pip install 'geoaware[examples]'"
        )
    check_own(folder / "SOURCES.txt", _FIRST)
    for goal, path in [(folder / path.name, path) for _, path in copied]:
        if goal.exists() and goal.read_bytes() != path.read_bytes():
            raise InputError(f"{goal}: exists and is another image; choose another folder")
    for _, path in copied:
        with replacing(folder / path.name) as draft:
            draft.write_bytes(path.read_bytes())
    with replacing(folder / "SOURCES.txt") as draft:
        draft.write_text("\n".join(_sources(copied)) + "\n", encoding="utf-8")
    for example, path in copied:
        typer.echo(f"{folder / path.name}: {example.about} (from {example.package})")
    for example, missing in found:
        if missing is None:
            say(f"left out {example.inside}: {example.package} is not installed or lacks it")


def _sources(copied: list[tuple[Example, Path]]) -> Iterator[str]:
    yield from (_FIRST, "")
    for example, path in copied:
        version = metadata.version(example.package)
        yield f"{path.name}: {example.inside} of {example.package} {version} ({example.about})"
