"""What `geoaware transfer` is worth, and what it takes.

    python benchmarks/transfer.py accuracy --data DATA --cache FOLDER     PCK by number of sources
    python benchmarks/transfer.py rules --data DATA --cache FOLDER        the vote against simpler rules
    python benchmarks/transfer.py calibration --data DATA --cache FOLDER  the parameters that are shipped
    python benchmarks/transfer.py masks --data DATA --cache FOLDER        IoU of masks by number of sources
    python benchmarks/transfer.py memory                                  peak memory by number of images

Sources are drawn from the training images, of quaternius for each species apart. `calibration` takes its
targets from there too; `accuracy` and `rules` take the validation images. `masks` takes both from badja, of
the same animal or of the other. The cache spares a second run the extraction.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine
from torch import Tensor

from geoaware.apps.transfer import Sources, TransferSettings, Vote, Voters, VoteSettings, read_sources
from geoaware.apps.transfer.calibration import fit
from geoaware.apps.transfer.crop import Window, crop_window
from geoaware.apps.transfer.evaluate import visibility
from geoaware.apps.transfer.masks import MOST, Cells, cells_of
from geoaware.apps.transfer.vote import Evidence, Queries
from geoaware.apps.transfer.voters import judge
from geoaware.data import object_mask
from geoaware.data.coco import open_folder
from geoaware.data.images import load_annotated
from geoaware.data.sampling import permutation
from geoaware.evaluation.score import score
from geoaware.features import load_extractor
from geoaware.matcher import Matcher
from geoaware.method.keypoints import Schema
from geoaware.method.types import AnnotatedImage, FeatureMap, Keypoints, Matches, Pair
from geoaware.presets import preset_extractor
from geoaware.store.feature_store import CachedExtractor, FeatureStore

SETS = ("lspet", "quaternius")
SEED = "transfer"


@dataclass
class Found:
    """What one set of sources found in one target."""

    vote: Vote
    image: AnnotatedImage
    window: Window
    voters: Voters

    @property
    def points(self) -> Tensor:
        """In pixels of the whole image."""
        return self.vote.points + torch.tensor(self.window[:2])


def matcher_with(cache: Path | None, zoom: str | None = None) -> Matcher:
    extractor = load_extractor(preset_extractor("lite"), device="cpu")
    if cache is not None:
        extractor = CachedExtractor(extractor, FeatureStore.of(cache, extractor))
    return Matcher(extractor, zoom=zoom)


def draw(sources: Sources, count: int, number: int, skip: int = 0) -> Sources:
    """The draw of that number: ``count`` images of a seeded order, from the one after ``skip`` on."""
    order = list(permutation(len(sources.images), f"{SEED}/{sources.name}"))
    chosen = sorted(order[skip + number * count : skip + (number + 1) * count])
    return replace(sources, images=tuple(sources.images[each] for each in chosen))


def categories(root: Path) -> list[Sources]:
    names = sorted({each.category for each in open_folder(root, "train")[1]})
    return [read_sources(root / "train.json", category=name) for name in names]


def search(
    matcher: Matcher, targets: Sequence[AnnotatedImage], voters: Sequence[Voters], what: str
) -> Iterator[tuple[FeatureMap, AnnotatedImage, Window]]:
    """Every target, encoded once."""
    settings = voters[0].settings
    for number, image in enumerate(targets, start=1):
        window = crop_window(image.box, image.size, settings.margin, settings.below)
        part = load_annotated(image).crop(window)
        canvas = matcher.canvas(part, known=settings.below > 0)
        yield matcher.features([part], [canvas])[0], image, window
        if number % 50 == 0:
            print(f"{what}: {number} of {len(targets)}", file=sys.stderr, flush=True)


def pck(found: Sequence[Found], schema: Schema) -> dict[str, float]:
    """PCK@0.1 under the protocol paper, standard and geometry-aware."""
    pairs, matches = [], []
    for each in found:
        here = AnnotatedImage(
            "sources", each.image.path, each.image.size, each.image.category, _known(each.vote)
        )
        pair = Pair(each.image.id, each.image.category, here, each.image)
        if pair.common_ids:
            points = each.points[list(pair.common_ids)]
            zero = torch.zeros(len(points))
            matches.append(Matches(points, zero, zero, points, zero.bool()))
            pairs.append(pair)
    result = score(matches, pairs, schema={each.category: schema for each in pairs}, draws=0)
    return {"pck": result.value(0.1), "aware": result.value(0.1, geometry_aware=True)}


def _known(vote: Vote) -> Keypoints:
    return Keypoints(tuple(range(len(vote.known))), vote.points, vote.known)


def trust(found: Sequence[Found], threshold: float = 0.5) -> dict[str, float]:
    """Figures on probabilities and visibility."""
    calibrated = {
        key: each.calibrate() for key, each in {id(one.voters): one.voters for one in found}.items()
    }
    chances, seen, right = [], [], []
    for each in found:
        evidence, outcome = judge(each.vote, each.image, each.window)
        known = each.vote.known
        chances.append(calibrated[id(each.voters)].probability(evidence))
        seen.append(each.voters.sources.schema.visibility(each.image.keypoints)[known].numpy())
        right.append(np.array(outcome, dtype=bool))
    figures = visibility(np.concatenate(chances), np.concatenate(seen), np.concatenate(right), threshold)
    at = figures.at
    return {"shown": at.shown, "precision": at.precision, "recall": at.recall, "right": at.right,
            "error": figures.calibration_error}  # fmt: skip


def mean(values: Sequence[dict[str, float]]) -> str:
    """Means in per cent, of PCK with the spread over draws."""
    parts = []
    for key in values[0]:
        column = [100 * each[key] for each in values]
        spread = f" ± {statistics.stdev(column):.1f}" if len(column) > 1 and key in ("pck", "aware") else ""
        parts.append(f"{statistics.fmean(column):.1f}{spread}")
    return " | ".join(parts)


def accuracy(given: argparse.Namespace) -> None:
    """PCK, visibility and calibration by number of sources."""
    matcher = matcher_with(given.cache, given.zoom)
    settings = TransferSettings(VoteSettings(nearest=given.nearest))
    settings = replace(settings, below=0.0) if given.no_crop else settings
    print(
        "| data | sources | draws | PCK@0.10 | geometry-aware | shown | precision | recall | in place | ECE |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in given.sets:
        found: dict[tuple[int, int], list[Found]] = {}
        schema = None
        for all_sources in categories(given.data / name):
            schema = all_sources.schema
            targets = _targets(given.data / name, "val", all_sources.name, given.targets)
            runs = {
                (count, number): Voters(draw(all_sources, count, number), matcher, settings)
                for count in given.sources
                for number in range(1 if count >= 20 else given.draws)
            }
            for features, image, window in search(
                matcher, targets, list(runs.values()), f"{name} {all_sources.name}"
            ):
                left, top, right, bottom = window
                mask = object_mask(image) if given.masks else None
                for key, voters in runs.items():
                    vote = voters.locate(features, None if mask is None else mask[top:bottom, left:right])
                    found.setdefault(key, []).append(Found(vote, image, window, voters))
        assert schema is not None
        for count in given.sources:
            runs_of = [each for key, each in found.items() if key[0] == count]
            figures = [{**pck(each, schema), **trust(each)} for each in runs_of]
            print(f"| {name} | {count} | {len(figures)} | {mean(figures)} |", flush=True)


def _targets(root: Path, split: str, category: str, most: int | None) -> list[AnnotatedImage]:
    images = [each for each in open_folder(root, split)[1] if each.category == category]
    order = list(permutation(len(images), f"{SEED}/{category}/{split}"))
    return [images[each] for each in sorted(order[: most or None])]


def medoid(voters: Voters, features: FeatureMap) -> Vote:
    """Of the sources' own points, the one nearest to all, weighted by confidence and fit."""
    queries = voters.queries
    votes = [
        voters.locate(
            features, queries=Queries(queries.poses, queries.descriptors[n : n + 1], queries.known[n : n + 1])
        )
        for n in range(len(queries))
    ]
    points = torch.stack([each.points for each in votes])
    fit_weight = torch.tensor([-each.distance / voters.settings.vote.softness for each in votes]).softmax(
        dim=0
    )
    weight = fit_weight[:, None] * torch.stack([each.evidence.mass * each.known for each in votes])
    apart = (points[:, None] - points[None]).norm(dim=-1)
    best = (apart * weight[None]).sum(dim=1).masked_fill(weight == 0, torch.inf).argmin(dim=0)
    chosen = points[best, torch.arange(points.shape[1])]
    known = torch.stack([each.known for each in votes]).any(dim=0)
    return replace(votes[0], points=chosen, known=known)


RULES: dict[str, VoteSettings] = {
    "best-fitting source alone": VoteSettings(rivals=0.0, nearest=1),
    "medoid of the sources' points": VoteSettings(rivals=0.0),
    "mean similarity, all sources alike": VoteSettings(rivals=0.0, softness=1e6),
    "mean similarity by fit": VoteSettings(rivals=0.0),
    "mean similarity by fit, less 0.4 of the rival": VoteSettings(),
}


def rules(given: argparse.Namespace) -> None:
    """PCK@0.1 of simpler rules, beside the vote."""
    matcher = matcher_with(given.cache)
    print("| data | sources | rule | PCK@0.10 | geometry-aware |")
    print("|---|---|---|---|---|")
    for name in given.sets:
        found: dict[tuple[int, str], list[Found]] = {}
        schema = None
        for all_sources in categories(given.data / name):
            schema = all_sources.schema
            targets = _targets(given.data / name, "val", all_sources.name, given.targets)
            runs = {
                count: Voters(draw(all_sources, count, 0), matcher) for count in given.sources if count > 1
            }
            for features, image, window in search(matcher, targets, list(runs.values()), all_sources.name):
                for count, voters in runs.items():
                    for rule, settings in RULES.items():
                        voters.settings = TransferSettings(settings)
                        vote = medoid(voters, features) if "medoid" in rule else voters.locate(features)
                        found.setdefault((count, rule), []).append(Found(vote, image, window, voters))
        assert schema is not None
        for (count, rule), each in found.items():
            print(f"| {name} | {count} | {rule} | {mean([pck(each, schema)])} |", flush=True)


def calibration(given: argparse.Namespace) -> None:
    """Parameters by number of sources, from training images of all sets; each set counts alike."""
    matcher = matcher_with(given.cache)
    kept: dict[int, list[tuple[str, Evidence, list[bool]]]] = {count: [] for count in given.sources}
    for name in given.sets:
        everything = categories(given.data / name)
        targets_each = -(-given.targets // len(everything))
        for all_sources in everything:
            targets = draw(all_sources, targets_each, 0).images
            runs = {
                (count, number): Voters(draw(all_sources, count, number, skip=targets_each), matcher)
                for count in given.sources
                for number in range(1 if count >= 20 else given.draws)
            }
            for features, image, window in search(matcher, targets, list(runs.values()), all_sources.name):
                for (count, _), voters in runs.items():
                    kept[count].append((name, *judge(voters.locate(features), image, window)))
    for count, judged in kept.items():
        groups, evidence, right = zip(*judged, strict=True)
        found = fit(evidence, right, groups, "")
        print(
            f"{count}: mass {found.mass:.2f}, peak {found.peak:.1f}, margin {found.margin:.1f}, intercept "
            f"{found.intercept:.2f}; {len(judged)} targets, {sum(map(len, right))} keypoints",
            flush=True,
        )


def masks(given: argparse.Namespace) -> None:
    """IoU of carried masks, beside the vote of the label of each source's nearest cell."""
    matcher = matcher_with(given.cache)
    settings = TransferSettings(carry_masks=True)
    print("| sources | targets | nearest cells | `--masks` |")
    print("|---|---|---|---|")
    path = given.data / "badja" / "annotations.json"
    animals = [read_sources(path, category=each) for each in ("dog", "cows")]
    for count, other in product([each for each in given.sources if each < 20], (False, True)):
        found = list[tuple[float, float]]()
        for own, strange in (animals, animals[::-1]):
            voters = Voters(draw(strange if other else own, count, 0), matcher, settings)
            used = {image.id for image in voters.sources.images}
            targets = [image for image in own.images if image.id not in used]
            for features, image, window in search(matcher, targets[: given.targets], [voters], own.name):
                found.append(_overlaps(voters, features, image, window))
        shown = " | ".join(f"{100 * statistics.fmean(ious):.1f}" for ious in zip(*found, strict=True))
        print(
            f"| {count} of the {'other' if other else 'same'} animal | {len(found)} | {shown} |", flush=True
        )


def _overlaps(
    voters: Voters, features: FeatureMap, image: AnnotatedImage, window: Window
) -> tuple[float, float]:
    """IoU of the mask by nearest cells and of the one that is carried, in the part that was encoded."""
    left, top, right, bottom = window
    truth = object_mask(image)
    assert truth is not None
    assert voters.outline is not None
    own = voters.outline(features)
    target = F.normalize(features.data.flatten(1), dim=0)
    shares, weights = torch.zeros(features.grid**2), list[float]()
    for row, source in enumerate(voters.sources.images):
        cells = _source_cells(voters, source, row)
        near = cells.descriptors @ target
        best = (2 - 2 * near[cells.covered >= 0.5].amax(dim=1)).clamp_min(0).sqrt().mean()
        weights.append(float(torch.exp(-best / voters.settings.vote.softness)))
        shares += weights[-1] * cells.covered[near.argmax(dim=0)]
    nearest = replace(own, shares=(shares / sum(weights)).view_as(features.norms).numpy())
    truth = truth[top:bottom, left:right]
    both = [each.pixels() for each in (nearest, own)]
    first, second = (float((each & truth).sum() / (each | truth).sum()) for each in both)
    return first, second


def _source_cells(voters: Voters, source: AnnotatedImage, row: int) -> Cells:
    left, top, right, bottom = window = voters.windows[row]
    part = load_annotated(source).crop(window)
    (features,) = voters.matcher.features([part], [voters.matcher.canvas(part, known=True)])
    mask = object_mask(source)
    assert mask is not None
    return cells_of(features, mask[top:bottom, left:right], MOST, 0)


def memory(given: argparse.Namespace) -> None:
    """Peak memory of runs over generated images with a toy extractor, each in a process of its own."""
    figures = {}
    for count in given.images:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "one-run", "--count", str(count), "--folder", folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            figures[count] = json.loads(done.stdout)
    print(json.dumps({"machine": machine(), "toy grid": 13, "images": figures}, indent=2))


def one_run(given: argparse.Namespace) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.toys import Patches, noise

    from geoaware.apps.transfer import list_targets, transfer

    torch.set_num_threads(1)
    photos = given.folder / "photos"
    photos.mkdir()
    for number in range(given.count):
        noise(96, 72, number).save(photos / f"{number:06}.png")
    keypoints = [10.0, 10.0, 2, 60.0, 30.0, 2, 40.0, 50.0, 2]
    noise(96, 72, 10**6).save(given.folder / "source.png")
    content = {
        "images": [{"id": 1, "file_name": "source.png", "width": 96, "height": 72}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "keypoints": keypoints}],
        "categories": [{"id": 1, "name": "thing", "keypoints": ["left eye", "right eye", "nose"]}],
    }
    (given.folder / "source.json").write_text(json.dumps(content), encoding="utf-8")
    before = _peak()
    transfer(
        read_sources(given.folder / "source.json"),
        list_targets([photos]),
        Matcher(Patches(), pose="flip"),
        given.folder / "found.json",
    )
    size = (given.folder / "found.json").stat().st_size
    print(json.dumps({"peak_mb": _peak(), "before_mb": before, "result_mb": round(size / 1e6, 2)}))


def _peak() -> float:
    """Largest resident size of this process so far, in megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1024), 1)


MODES: dict[str, Callable[[argparse.Namespace], None]] = {
    "accuracy": accuracy,
    "rules": rules,
    "calibration": calibration,
    "masks": masks,
    "memory": memory,
    "one-run": one_run,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=list(MODES))
    parser.add_argument("--data", type=Path, default=Path("DATA"), help="folder with lspet and quaternius")
    parser.add_argument("--cache", type=Path, help="features are read from here and put here")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--sources", nargs="+", type=int, default=[1, 5, 20])
    parser.add_argument("--draws", type=int, default=3, help="of sources, where fewer than 20")
    parser.add_argument("--targets", type=int, help="of each category at most; calibration: of each set")
    parser.add_argument("--nearest", type=int, default=0, help="accuracy: so many sources vote")
    parser.add_argument("--no-crop", action="store_true", help="accuracy: without the targets' boxes")
    parser.add_argument("--zoom", choices=["auto", "off"], help="accuracy: of the matcher")
    parser.add_argument("--masks", action="store_true", help="accuracy: look on the targets' masks only")
    parser.add_argument("--images", nargs="+", type=int, default=[500, 5000])
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.mode == "calibration" and given.targets is None:
        given.targets = 200
    MODES[given.mode](given)


if __name__ == "__main__":
    main()
