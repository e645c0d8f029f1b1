"""Where in an image there are objects like the sources'.

1. *Candidates.* Regions of the whole image where an object is present (`Extractor.presence`), and places
   where the keypoints lie to each other as in a source, at any size. For the latter every source is a
   pictorial structure: the score of a centre is the mean, over the keypoints, of the best similarity near
   the place where the source's layout expects the keypoint (Felzenszwalb and Huttenlocher, 2005).
2. *A closer look.* Each candidate is cut out and encoded. Its box becomes that of the present region or of
   the best layout. Presence in it and around it, and the probabilities of the keypoints that the sources vote
   for in it, say how probably it is the box of an object.
3. *One box an object.* Of boxes that overlap much, the most probable stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from scipy import ndimage
from torch import Tensor

from geoaware.apps.transfer.calibration import Calibration
from geoaware.apps.transfer.crop import ALWAYS, Window, crop_window
from geoaware.apps.transfer.sources import Sources
from geoaware.apps.transfer.vote import Vote, against_rivals, mean_descriptors
from geoaware.apps.transfer.voters import Voters
from geoaware.features import Extractor
from geoaware.features.framed import box_of_cells, box_of_edges
from geoaware.method.alignment import mirror_points
from geoaware.method.geometry import Canvas, Pose, pose_points
from geoaware.method.maps import resized
from geoaware.method.matching import similarity
from geoaware.method.types import AnnotatedImage, Box, longer_side
from geoaware.runs.errors import InputError, NotFiniteError

MINIMUM = 0.3
"""Less probable objects are none. Chosen, as all numbers here, on training images: of animalpose where there
are objects, of people and of things where there are none."""

CANDIDATES = 8
"""Layouts that are looked at closely, beside the regions where an object is present."""

_SIZES = tuple(float(each) for each in 0.09 * 2 ** (np.arange(8) / 2))
"""Longer sides of objects that are looked for in an image, as shares of the canvas."""

_CLOSE = (0.6, 0.72, 0.85, 1.0, 1.18)
"""The same in a candidate that was cut out, as shares of its box's."""

_LAYOUTS = 24
"""So many layouts at most are looked for."""

_PLAY = 0.2
"""Side of the square in which a keypoint may lie, as a share of the longer side."""

_BESIDE = -0.3
"""Similarity outside of the map."""

_PLACES = 400
"""So many places at most are compared with each other."""

_FIRST = 60
"""So many of the best places may replace a candidate's box."""

_APART, _AGREE, _NEAR, _OVERLAP = 0.5, 0.6, 0.4, 0.4
"""Overlaps of boxes: from which on candidates are one, a region agrees with a candidate, a layout may replace
it, and found boxes are of one object."""

_PART = 0.9
"""So much of a box inside a more probable one makes it a part of that object."""

_PRESENT, _SURELY = 1.0, 2.0
"""Logits of presence in the whole image, and in what was cut out."""

_FEW = 4
"""Fewer cells are no region."""

_RING = 0.15
"""Width of the frame around a box whose presence speaks against it, as a share of the longer side."""

_MOST = 8
"""So many of the most probable keypoints speak for a box."""

_WEIGHTS = (9.6, -6.3, 7.2, -11.1)
"""Of presence in the box, around it, and the keypoints' probability, and the intercept of the log-odds."""


class Region(NamedTuple):
    """A box that may hold an object, and how much speaks for it."""

    box: Box
    chance: float


class Candidate(NamedTuple):
    """A box, its score, if known, and the vote on the part of the image around it."""

    box: Box
    score: float | None
    vote: Vote
    window: Window


_Boxed = TypeVar("_Boxed", Region, Candidate)


@dataclass(frozen=True)
class Layout:
    """How the keypoints of a source lie in its box, in a pose.

    Attributes:
        offsets: from the box's centre, in its longer sides.
        known: which keypoints the source has.
        sides: width and height of the box, in its longer sides.
    """

    offsets: Float[Tensor, "k 2"]
    known: Bool[Tensor, " k"]
    sides: tuple[float, float]


@dataclass(frozen=True)
class _View:
    """What is seen of an image: the canvas, the probability that a cell shows an object, and its logit; how
    similar each cell is to each keypoint, less what it has of others."""

    canvas: Canvas
    logits: Float[np.ndarray, "g g"]
    maps: Float[Tensor, "k g g"]

    @property
    def grid(self) -> int:
        return len(self.logits)

    def share(self, edges: Box) -> tuple[float, float]:
        """Mean probability of presence between edges in cells, and in the frame around them."""
        inside, count = self._sum(edges)
        extra = _RING * longer_side(edges)
        left, top, right, bottom = edges
        all_of_it, more = self._sum((left - extra, top - extra, right + extra, bottom + extra))
        return inside / max(count, 1), (all_of_it - inside) / max(more - count, 1)

    def _sum(self, edges: Box) -> tuple[float, int]:
        left, top, right, bottom = (min(max(round(each), 0), self.grid) for each in edges)
        part = self.logits[top:bottom, left:right].astype(np.float64)
        return float((1 / (1 + np.exp(-part))).sum()), part.size

    def edges(self, box: Box) -> Box:
        """A box in pixels as edges in cells."""
        corners = self.canvas.to_canvas([box[:2], box[2:]]) * (self.grid / self.canvas.size)
        x1, y1, x2, y2 = torch.cat([corners.amin(dim=0), corners.amax(dim=0)]).tolist()
        return x1, y1, x2, y2

    def box(self, edges: Box) -> Box | None:
        """Edges in cells as a box in pixels, inside the image; ``None`` if nothing of it is."""
        box = self._cut(box_of_edges(edges, self.grid, self.canvas))
        return box if box[2] - box[0] > 1 and box[3] - box[1] > 1 else None

    def regions(self, above: float) -> Iterator[Box]:
        """Boxes of the connected regions where an object is present."""
        numbers, count = ndimage.label(self.logits > above, structure=np.ones((3, 3)))
        for each in range(1, count + 1):
            cells = torch.from_numpy(numbers == each)
            if int(cells.sum()) >= _FEW and (box := box_of_cells(cells, self.canvas)) is not None:
                yield self._cut(box)

    def _cut(self, box: Box) -> Box:
        """A box, cut at the edges of the image."""
        x1, y1, x2, y2 = box
        return max(x1, 0.0), max(y1, 0.0), min(x2, self.canvas.width), min(y2, self.canvas.height)


class Finder:
    """Looks for objects like the sources'.

    Args:
        voters: the sources, encoded by an extractor that sees where an object is.
        known: what their votes are worth.

    Raises:
        InputError: the extractor does not.
    """

    def __init__(self, voters: Voters, known: Calibration) -> None:
        check_sees(voters.matcher.extractor)
        queries = voters.queries
        rows, there = queries.descriptors.flatten(0, 1), queries.known.flatten(0, 1)
        self.voters, self.known = voters, known
        self.mean, self.shown = mean_descriptors(rows, there, torch.ones(len(rows), device=rows.device))
        self.layouts = layouts(voters.sources, queries.poses)

    def find(self, image: Image.Image) -> list[Candidate]:
        """The objects in an image, the most probable first; none is a result."""
        least = MINIMUM if self.voters.settings.find is None else self.voters.settings.find
        found = list[tuple[float, Candidate]]()
        for box in self._candidates(self._look(image)):
            better, inside, around = self._closer(image, box)
            if _chance(inside, around, 1.0) < least:
                continue  # no vote could make it probable
            vote, window = vote_in(self.voters, image, better)
            chances = np.sort(self.known.probability(vote.evidence)[vote.known.numpy()])
            chance = _chance(inside, around, float(chances[-_MOST:].mean()))
            if chance >= least:
                found.append((chance, Candidate(better, chance, vote, window)))
        found.sort(key=lambda each: -each[0])
        return apart([each for _, each in found], _OVERLAP, _PART)

    def _look(self, image: Image.Image) -> _View:
        matcher, extractor = self.voters.matcher, self.voters.matcher.extractor
        (features,) = extractor.framed([image], [matcher.canvas(image, known=True)])
        presence = resized(extractor.presence(features.levels)[None, None], features.grid)[0, 0]
        maps = similarity(self.mean, features.data, features.norms) * self.mean.norm(dim=1)[:, None, None]
        maps = against_rivals(maps, self.shown, self.voters.settings.vote.rivals)[self.shown]
        if not (maps.isfinite().all() and presence.isfinite().all()):
            raise NotFiniteError("the features of the target are not finite; try another dtype")
        return _View(features.canvas, presence.float().cpu().numpy(), maps.float().cpu())

    def _candidates(self, view: _View) -> list[Box]:
        """Boxes to look at closely."""
        places = []
        for chance, edges in self._places(view, _SIZES):
            inside, around = view.share(edges)
            if (box := view.box(edges)) is not None:
                places.append(Region(box, chance + 0.3 * (inside - around)))
        best = apart(sorted(places, key=lambda each: -each.chance), _APART)[:CANDIDATES]
        return [*view.regions(_PRESENT), *(each.box for each in best)]

    def _places(self, view: _View, sizes: Sequence[float]) -> list[tuple[float, Box]]:
        """The best places of the layouts: similarity, and edges in cells."""
        known = [
            Layout(each.offsets[self.shown], each.known[self.shown], each.sides) for each in self.layouts
        ]
        found = [place for size in sizes for place in placed(view.maps, known, size * view.grid)]
        return sorted(found, key=lambda each: -each[0])[:_PLACES]

    def _closer(self, image: Image.Image, box: Box) -> tuple[Box, float, float]:
        """A candidate, cut out and looked at again: its better box, and presence in and around that."""
        window = crop_window(box, image.size, self.voters.settings.margin, ALWAYS)
        view, here = self._look(image.crop(window)), moved(box, window, -1)
        shown = max(view.regions(_SURELY), key=lambda each: overlap(each, here), default=here)
        if overlap(shown, here) < _AGREE:
            sizes = [longer_side(view.edges(here)) / view.grid * each for each in _CLOSE]
            places = (view.box(edges) for _, edges in self._places(view, sizes)[:_FIRST])
            shown = next((each for each in places if each and overlap(each, here) > _NEAR), here)
        return moved(shown, window), *view.share(view.edges(shown))


def _chance(inside: float, around: float, keypoints: float) -> float:
    """How probably a box is that of an object, by presence in it and around it, and by its keypoints."""
    return float(1 / (1 + np.exp(-np.dot(_WEIGHTS, (inside, around, keypoints, 1.0)))))


def vote_in(voters: Voters, image: Image.Image, box: Box) -> tuple[Vote, Window]:
    """The vote on what a box holds: it alone is cut out, and keypoints are sought inside it."""
    settings, matcher = voters.settings, voters.matcher
    window = crop_window(box, image.size, settings.margin, ALWAYS if settings.below else 0.0)
    left, top, right, bottom = window
    part, mask = image.crop(window), np.zeros((bottom - top, right - left), dtype=bool)
    x1, y1 = (max(0, round(each - edge)) for each, edge in zip(box[:2], window[:2], strict=True))
    x2, y2 = (round(each - edge) for each, edge in zip(box[2:], window[:2], strict=True))
    mask[min(y1, bottom - top - 1) : max(y2, y1 + 1), min(x1, right - left - 1) : max(x2, x1 + 1)] = True
    (features,) = matcher.features([part], [matcher.canvas(part, known=True)])
    return voters.locate(features, mask, carry=True), window


def check_sees(extractor: Extractor) -> None:
    """Make sure that an extractor can tell where an object is."""
    if "zoom" not in extractor.sees:
        raise InputError(
            f"{extractor.name} does not see where objects are, as lite does; give boxes", "detections"
        )


def layouts(sources: Sources, poses: Sequence[Pose]) -> list[Layout]:
    """How the keypoints lie in the sources, in each pose; of many sources some, evenly spread."""
    count = len(sources.images)
    step = -(-count * len(poses) // _LAYOUTS)
    return [layout(sources, each, pose) for each in sources.images[::step] for pose in poses]


def layout(sources: Sources, image: AnnotatedImage, pose: Pose) -> Layout:
    """How the keypoints lie in a source in a pose."""
    schema, keypoints = sources.schema, image.keypoints
    xy, known = torch.zeros(len(schema), 2, dtype=torch.float64), schema.visibility(keypoints)
    xy[list(keypoints.ids)] = keypoints.xy.double()
    x1, y1, x2, y2 = image.box or keypoints.box
    corners = pose_points([(x1, y1), (x2, y2)], image.size, pose)
    if pose == "flip":
        mirrored = mirror_points(xy, image.size, schema.partners, known)
        xy, known = mirrored.places.double(), mirrored.known
    else:
        xy = pose_points(xy, image.size, pose)
    low, high = corners.amin(dim=0), corners.amax(dim=0)
    longer = max(1.0, float((high - low).max()))
    width, height = ((high - low) / longer).tolist()
    return Layout((xy - (low + high) / 2) / longer, known, (width, height))


def placed(
    maps: Float[Tensor, "k g g"], layouts: Iterable[Layout], longer: float
) -> Iterator[tuple[float, Box]]:
    """Where layouts of a size lie best: mean similarity and edges in cells, at every local maximum.

    Args:
        maps: similarity of each cell to each keypoint.
        layouts: of the same keypoints.
        longer: side of the objects, in cells.
    """
    grid, room = maps.shape[-1], int(longer) + 2
    play = max(1, round(_PLAY * longer)) | 1
    near = F.max_pool2d(maps[None], play, 1, play // 2)[0]
    near = F.pad(near, (room, room, room, room), value=_BESIDE)
    best, of = torch.full((grid, grid), -torch.inf), torch.zeros(grid, grid, dtype=torch.long)
    listed = [each for each in layouts if bool(each.known.any())]
    for number, each in enumerate(listed):
        offsets = (each.offsets * longer).round().long().clamp(-room, room) + room
        total = torch.zeros(grid, grid)
        for row in each.known.nonzero().flatten().tolist():
            x, y = offsets[row].tolist()
            total += near[row, y : y + grid, x : x + grid]
        total /= int(each.known.sum())
        of = torch.where(total > best, number, of)
        best = torch.maximum(best, total)
    peaks = best == F.max_pool2d(best[None], 3, 1, 1)[0]
    for y, x in peaks.nonzero().tolist():
        width, height = (side * longer / 2 for side in listed[of[y, x]].sides)
        yield float(best[y, x]), (x + 0.5 - width, y + 0.5 - height, x + 0.5 + width, y + 0.5 + height)


def overlap(one: Box, other: Box) -> float:
    """Area that two boxes share, of the area that they cover together."""
    both = _shared(one, other)
    return both / (_area(one) + _area(other) - both) if both else 0.0


def apart(regions: Iterable[_Boxed], most: float, inside: float = 2.0) -> list[_Boxed]:
    """The regions, in their order, that no region before them rules out.

    Args:
        regions: the best first.
        most: overlap from which on a region is the same as one before it.
        inside: share of its area in another's box from which on it is a part of that one.
    """
    kept: list[_Boxed] = []
    for each in regions:
        if all(
            overlap(each.box, other.box) < most and _shared(each.box, other.box) < inside * _area(each.box)
            for other in kept
        ):
            kept.append(each)
    return kept


def _shared(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def moved(box: Box, window: Window, sign: int = 1) -> Box:
    """A box in a part of an image as one in the whole image, or back (-1)."""
    x, y = sign * window[0], sign * window[1]
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y
