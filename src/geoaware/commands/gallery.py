"""``geoaware gallery``: predictions as one HTML file to look through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from geoaware.commands.options import LoaderOptions, expand, say
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.report.gallery import Judged


@dataclass(frozen=True)
class ShownPairs:
    """Which pairs are shown."""

    pairs: Annotated[int | None, Option(metavar="N", help="Only so many pairs, chosen by --seed.")] = None
    seed: Annotated[int, Option(min=0, help="Of the choice of pairs.")] = 0
    worst: Annotated[int | None, Option(metavar="N", help="Only those with the largest mean error.")] = None

    def check(self) -> None:
        """Find a wrong choice before anything is read."""
        if self.pairs is not None and self.worst is not None:
            raise InputError("--pairs and --worst are two choices of pairs; give one of them")
        for option, count in (("--pairs", self.pairs), ("--worst", self.worst)):
            if count is not None and count < 1:
                raise InputError(f"{option} {count}: give a number from 1")

    def of(self, run: Judged) -> list[int]:
        """Positions of the pairs in the file."""
        from geoaware.data.sampling import draw

        total = len(run.pairs)
        if self.worst is not None:
            return run.worst(self.worst)
        return list(range(total)) if self.pairs is None else draw(total, self.pairs, f"{self.seed}/gallery")


@expand
def gallery(
    predictions: Annotated[
        list[Path],
        Argument(
            metavar="PREDICTIONS [OTHER]",
            help="What `geoaware predict` wrote; a second file of the same pairs is compared with it.",
        ),
    ],
    root: Annotated[Path, Option(help="Folder of the data set.")],
    dataset: Annotated[str | None, Option(help="Its name, if not as the predictions say.")] = None,
    split: Annotated[str | None, Option(help="Its split, if not as the predictions say.")] = None,
    *,
    loader: LoaderOptions,
    out: Annotated[Path | None, Option(help="HTML file; named after PREDICTIONS if not given.")] = None,
    alpha: Annotated[float, Option(help="Threshold of right and wrong.")] = 0.1,
    size: Annotated[int, Option(help="Longer side of the images, in pixels.")] = 320,
    chosen: ShownPairs,
    strict: Annotated[bool, Option("--strict", help="Stop at an unreadable image; else a grey box.")] = False,
) -> None:
    """Write pairs and their matches to one HTML file to sort, filter and look through.

    The file needs no server and fetches nothing.

    Examples:

    geoaware gallery spair.jsonl --root SPair-71k --out spair.html

    geoaware gallery with.jsonl without.jsonl --root lspet --annotations val.json --worst 200
    """
    if len(predictions) > 2:
        raise InputError(f"{len(predictions)} predictions files; give one, or two to compare")
    chosen.check()

    from geoaware.data import checked
    from geoaware.report.gallery import describe, entries, find_images, judge, write_gallery
    from geoaware.runs.files import check_apart, check_goals
    from geoaware.runs.progress import progress_bars

    path = out or Path(f"{predictions[0].stem}.html")
    check_goals(path)
    runs = [judge(each, alpha) for each in predictions]
    first = runs[0]
    positions = chosen.of(first)
    name, part = _named(first, dataset, split)
    images = find_images(name, root, part, **checked(name, loader.given()))
    check_apart([path], [*predictions, *(each.path for each in images.values())])
    shown = entries(runs, images, positions)
    with progress_bars() as tell:
        write_gallery(
            shown,
            path,
            title=" against ".join(f"{each.path.stem}" for each in runs),
            about=describe(runs, f"{name} {part}", alpha, len(positions)),
            size=size,
            alpha=alpha,
            labels=[each.path.name for each in runs],
            strict=strict,
            progress=lambda done: tell("writing", done, len(positions)),
        )
    _say_size(path, len(positions))


def _say_size(path: Path, pairs: int) -> None:
    megabytes = path.stat().st_size / 2**20
    say(f"wrote {path} ({megabytes:.1f} MB, {pairs:,} pairs); open it in a browser")
    if megabytes > 100:
        say("smaller: --worst 500, --pairs 500 or --size 200")


def _named(run: Judged, dataset: str | None, split: str | None) -> tuple[str, str]:
    """Data set and split: as given, else as the file says."""
    name, part = dataset or run.header.dataset, split or run.header.split
    if not (name and part):
        lacking = "--dataset" if not name else "--split"
        raise InputError(f"{run.path}: does not say of what data set and split it is; give {lacking}")
    return name, part
