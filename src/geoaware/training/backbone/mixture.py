"""Steps that mix data sets: views of dogs, cats, sheep, people and renders, and windows of anything.

Views of annotated objects come from `Crops`, turned by any angle, scaled, mirrored with exchanged labels and
in other light. Windows are upright parts of whole images with the plain extractor's descriptors of them, for
distillation. All that is random comes from one generator, so that a step is decided by its number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geoaware.method.geometry import Canvas, Placement
from geoaware.training.backbone.crops import SIZE, Crops
from geoaware.training.backbone.images import OBJECT, UNKNOWN
from geoaware.training.backbone.views import _relit, _tinted
from geoaware.training.backbone.vocabulary import Vocabulary

STRIDE = 8
"""View pixels a cell of the descriptors' grid."""

_MOVED = 0.15
"""How far an object is moved, as a share of the view."""

_COVER = (0.1, 0.35)
"""Sides of a covering rectangle, as shares of the object's longer side."""

_LIGHT = 0.4
"""Strength of the changes of light and colour of views; windows get half."""

_WINDOW_STEP = 16
"""Windows begin at multiples of so many pixels, where the stored descriptors have cells."""


@dataclass(frozen=True)
class Turning:
    """How objects are shown.

    Attributes:
        smaller: longer side of an object on a view, least share of the view's side.
        larger: greatest share.
        turn: degrees of rotation to either side.
        anyhow: chance of a rotation by any angle instead.
        mirror: chance of the mirror image.
        cover: chance of a rectangle of noise before the object.
        background: chance of another image behind an object that has a mask.
        recolour: chance of another coat for one.
    """

    smaller: float = 0.4
    larger: float = 1.3
    turn: float = 30.0
    anyhow: float = 0.3
    mirror: float = 0.5
    cover: float = 0.3
    background: float = 0.7
    recolour: float = 0.5


@dataclass(frozen=True)
class Views:
    """Views of annotated objects; places are grid positions.

    Attributes:
        pixels: 0 to 1.
        regions: what each cell shows, as in `Crops`.
        xy: keypoints by class, then points on limbs.
        visible: which are there.
        elsewhere: cells that show another object of the kind, where a match is not taken for wrong.
        others: places of other objects' keypoints by class, then points on limbs.
        others_visible: which are there.
        pairs: rows of views that show one object twice, both mirrored or neither.
        own: points between keypoints on both views of each of these.
        known: which of these are on both.
        image: number of the object that each view shows.
    """

    pixels: Float[Tensor, "v 3 s s"]
    regions: Float[Tensor, "v g g"]
    xy: Float[Tensor, "v n 2"]
    visible: Bool[Tensor, "v n"]
    elsewhere: Bool[Tensor, "v g g"]
    others: Float[Tensor, "v o n 2"]
    others_visible: Bool[Tensor, "v o n"]
    pairs: Int[Tensor, "m 2"]
    own: Float[Tensor, "m 2 p 2"]
    known: Bool[Tensor, "m p"]
    image: Int[Tensor, " v"]


@dataclass(frozen=True)
class Windows:
    """Windows of whole images with what the plain extractor makes of them.

    Attributes:
        pixels: 0 to 1.
        plain: its descriptors, half as many cells a side as the network's.
        inside: which of these cells show the image and not the canvas's edge.
        negative: of each, whether it surely shows nothing that is trained on.
    """

    pixels: Float[Tensor, "w 3 s s"]
    plain: Float[Tensor, "w c h h"]
    inside: Bool[Tensor, "w h h"]
    negative: Bool[Tensor, " w"]


class Plain:
    """Whole images and the plain extractor's descriptors of them, on the disk.

    Args:
        folder: with ``pixels.npy`` (n, S, S, 3), ``maps.npy`` (n, c, S/16, S/16), ``about.npz`` and
            ``paths.json``.
    """

    def __init__(self, folder: Path) -> None:
        self.pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        self.maps = np.load(folder / "maps.npy", mmap_mode="r")
        with np.load(folder / "about.npz") as about:
            self.inside, self.unlabelled = about["insides"], int(about["unlabelled"])
        paths = json.loads((folder / "paths.json").read_text(encoding="utf-8"))
        self.negative = np.array([is_negative(each) for each in paths])

    def windows(self, count: int, size: int, unlabelled: int, generator: torch.Generator) -> Windows:
        """Windows somewhere on random images, at least half of each on the image.

        Args:
            count: how many.
            size: side in pixels.
            unlabelled: how many of them are of images without labels.
            generator: of the choice.
        """
        first = torch.randint(self.unlabelled, (unlabelled,), generator=generator)
        rest = torch.randint(self.unlabelled, len(self.negative), (count - unlabelled,), generator=generator)
        pixels, plain, inside = [], [], []
        rows = [*first.tolist(), *rest.tolist()]
        cells = size // _WINDOW_STEP
        for row in rows:
            whole = np.zeros(self.maps.shape[-2:], bool)
            top, bottom, left, right = self.inside[row]
            whole[top:bottom, left:right] = True
            y, x = self._corner(whole, cells, generator)
            pixel_y, pixel_x = y * _WINDOW_STEP, x * _WINDOW_STEP
            cut = np.array(self.pixels[row, pixel_y : pixel_y + size, pixel_x : pixel_x + size])
            pixels.append(torch.from_numpy(cut).permute(2, 0, 1))
            plain.append(torch.from_numpy(np.array(self.maps[row, :, y : y + cells, x : x + cells])))
            inside.append(torch.from_numpy(whole[y : y + cells, x : x + cells]))
        shown = _relit(torch.stack(pixels).float() / 255, _LIGHT / 2, generator)
        maps = F.normalize(torch.stack(plain).float(), dim=1)
        return Windows(shown, maps, torch.stack(inside), torch.from_numpy(self.negative[rows]))

    def backdrop(self, size: int, generator: torch.Generator) -> Float[Tensor, "3 s s"]:
        """Some part of an image without labels."""
        row = int(torch.randint(self.unlabelled, (), generator=generator))
        far = self.pixels.shape[1] - size
        y, x = torch.randint(far + 1, (2,), generator=generator).tolist()
        cut = np.array(self.pixels[row, y : y + size, x : x + size])
        return torch.from_numpy(cut).permute(2, 0, 1).float() / 255

    def _corner(self, whole: np.ndarray, cells: int, generator: torch.Generator) -> tuple[int, int]:
        far = whole.shape[0] - cells
        for _ in range(10):
            y, x = torch.randint(far + 1, (2,), generator=generator).tolist()
            if whole[y : y + cells, x : x + cells].mean() >= 0.5:
                return y, x
        return far // 2, far // 2


def is_negative(path: str) -> bool:
    """Whether an image without labels surely shows no mammal, by its ImageNet class; people may be on it.

    Example:
        >>> is_negative("unlabelled/n03792782_mountain_bike.jpg")
        True
        >>> is_negative("unlabelled/n02088364_beagle.jpg")
        False
    """
    if not path.startswith("unlabelled/n"):
        return False
    synset = int(path.split("/n")[1][:8])
    # WordNet 3.0 offsets of ImageNet's classes: mammals lie from the echidna to the elephants and pandas;
    # from 9800000 on there are people.
    mammal = 1870000 <= synset <= 1885000 or 2077000 <= synset <= 2140000 or 2321000 <= synset <= 2515000
    return not mammal and synset < 9800000


@dataclass(frozen=True)
class Share:
    """Views of one data set in a step: so many objects, of which the first few are shown twice."""

    crops: Crops
    objects: int
    twice: int


def draw_views(
    shares: Sequence[Share],
    vocabulary: Vocabulary,
    turning: Turning,
    plain: Plain,
    size: int,
    limbs: int,
    points: int,
    generator: torch.Generator,
) -> Views:
    """The views of a step.

    Args:
        shares: of each data set.
        vocabulary: of the classes.
        turning: how objects are shown.
        plain: whence backgrounds come.
        size: side of a view.
        limbs: points on limbs, of any objects.
        points: that nobody annotated, on objects shown twice.
        generator: of all that is random.
    """
    chosen = [(share, row, twice) for share in shares for row, twice in _objects(share, generator)]
    cells = size // STRIDE
    ends, along = _limb_points(vocabulary, limbs, generator)
    rows: dict[str, list[Tensor]] = {
        name: [] for name in ("pixels", "regions", "xy", "visible", "elsewhere", "others", "others_visible")
    }
    pairs, own, known, image = [], [], [], []
    for number, (share, row, twice) in enumerate(chosen):
        placements: list[Placement] = []
        for _ in range(1 + twice):
            placement = _place(share.crops, row, turning, generator)
            # The two views of one object agree in being mirrored: else there is no telling its points apart.
            if placements:
                placement = Placement(
                    placement.pivot,
                    placement.centre,
                    placement.scale,
                    placement.degrees,
                    placements[0].mirrored,
                )
            placements.append(placement)
            shown = _show(share.crops, row, placement, turning, plain, size, vocabulary, generator)
            for name, value in shown.items():
                rows[name].append(value)
            image.append(number)
        if twice:
            pairs.append((len(image) - 2, len(image) - 1))
            places, counted = _own(share.crops, row, placements, points, generator)
            own.append(places)
            known.append(counted)
    canvas = Canvas(SIZE, SIZE, SIZE)
    pixels = _relit(torch.stack(rows["pixels"]), _LIGHT, generator)
    _cover(pixels, torch.stack(rows["xy"]), torch.stack(rows["visible"]), rows["visible"], turning, generator)
    xy, visible = _with_limbs(torch.stack(rows["xy"]), torch.stack(rows["visible"]), ends, along)
    others = _with_limbs(torch.stack(rows["others"]), torch.stack(rows["others_visible"]), ends, along)
    return Views(
        pixels,
        torch.stack(rows["regions"]),
        canvas.to_grid(xy, cells),
        visible,
        torch.stack(rows["elsewhere"]),
        canvas.to_grid(others[0], cells),
        others[1],
        torch.tensor(pairs, dtype=torch.long).view(-1, 2),
        canvas.to_grid(torch.stack(own), cells) if own else torch.zeros(0, 2, points, 2),
        torch.stack(known) if known else torch.zeros(0, points, dtype=torch.bool),
        torch.tensor(image),
    )


def _objects(share: Share, generator: torch.Generator) -> list[tuple[int, bool]]:
    """Rows of random objects, every category as often, and whether each is shown twice."""
    count = len(share.crops.categories)
    order = torch.randperm(count, generator=generator).tolist()
    found = []
    for place in range(share.objects):
        members = np.flatnonzero(share.crops.category == order[place % count])
        row = int(members[int(torch.randint(len(members), (), generator=generator))])
        found.append((row, place < share.twice))
    return found


def _place(crops: Crops, row: int, turning: Turning, generator: torch.Generator) -> Placement:
    """The object somewhere on the view, in pixels of a view as large as a crop."""
    scale, anyhow, turned, across, down, mirrored = torch.rand(6, generator=generator).tolist()
    x1, y1, x2, y2 = crops.box[row].tolist()
    side = max(x2 - x1, y2 - y1, 1.0)
    wanted = turning.smaller * (turning.larger / turning.smaller) ** scale * SIZE
    turn = 180.0 if anyhow < turning.anyhow else turning.turn
    reach = min(0.4 * wanted, SIZE / 2)
    pivot = ((x1 + x2) / 2, (y1 + y2) / 2)
    moved = (SIZE * (0.5 + _MOVED * (2 * across - 1)), SIZE * (0.5 + _MOVED * (2 * down - 1)))
    x, y = (min(max(each, reach), SIZE - reach) for each in moved)
    return Placement(pivot, (x, y), wanted / side, turn * (2 * turned - 1), mirrored < turning.mirror)


def _show(
    crops: Crops,
    row: int,
    placement: Placement,
    turning: Turning,
    plain: Plain,
    size: int,
    vocabulary: Vocabulary,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Pixels and labels of one view, places still in pixels of the crop."""
    pixels = torch.from_numpy(np.array(crops.pixels[row])).permute(2, 0, 1).float()[None] / 255
    regions = torch.from_numpy(np.array(crops.regions[row]))[None, None].float()
    theta = placement.sampling(SIZE)[None]
    cells = size // STRIDE
    coarse = F.affine_grid(theta, [1, 1, cells, cells], align_corners=False)
    found = F.grid_sample(regions, coarse, mode="nearest", align_corners=False)[0, 0]
    # Beyond the crop nobody knows.
    beyond = F.grid_sample(torch.ones_like(regions), coarse, mode="nearest", align_corners=False)[0, 0] == 0
    found = torch.where(beyond, torch.full_like(found, UNKNOWN), found)
    before, recoloured = torch.rand(2, generator=generator).tolist()
    masked = bool(crops.masked[row])
    where = (regions == OBJECT).float()
    if masked and recoloured < turning.recolour:
        behind = plain.backdrop(SIZE, generator)[None]
        pixels = _tinted(
            torch.cat([pixels, behind]), torch.cat([where, 0 * where]), torch.tensor([1]), generator
        )[:1]
    shown = _sampled(pixels, theta, placement.scale, size)
    if masked and before < turning.background:
        alpha = _sampled(where, theta, placement.scale, size)
        shown = alpha * shown + (1 - alpha) * plain.backdrop(size, generator)
        found = torch.where(found == OBJECT, found, torch.full_like(found, UNKNOWN))
    names = list(vocabulary.partners) if placement.mirrored else list(range(len(vocabulary)))
    xy, visible = _placed(crops.xy[row], crops.visible[row], names, placement)
    others, others_visible = _placed(crops.others_xy[row], crops.others_visible[row], names, placement)
    return {
        "pixels": shown[0],
        "regions": found,
        "xy": xy,
        "visible": visible,
        "elsewhere": _elsewhere(crops, row, coarse[0]),
        "others": others,
        "others_visible": others_visible,
    }


def _sampled(
    pixels: Float[Tensor, "1 c s s"], theta: Float[Tensor, "1 2 3"], scale: float, size: int
) -> Float[Tensor, "1 c t t"]:
    """The crop as it is placed; shrunk in two steps where it is made much smaller."""
    if scale * size / SIZE < 0.6:
        pixels = F.avg_pool2d(pixels, 2)
    fine = F.affine_grid(theta, [1, pixels.shape[1], size, size], align_corners=False)
    return F.grid_sample(pixels, fine, align_corners=False)


def _placed(
    xy: np.ndarray, visible: np.ndarray, names: Sequence[int], placement: Placement
) -> tuple[Float[Tensor, "*n 2"], Bool[Tensor, "*n"]]:
    """Keypoints on the view under the names they have there; those off it are not visible."""
    there = placement.place(torch.from_numpy(xy[..., list(names), :]))
    inside = ((there >= 0) & (there <= SIZE - 1)).all(dim=-1)
    return there, torch.from_numpy(visible[..., list(names)]) & inside


def _elsewhere(crops: Crops, row: int, places: Float[Tensor, "g g 2"]) -> Bool[Tensor, "g g"]:
    """Cells in the box of another object of the kind and not in the object's own.

    Args:
        crops: with the boxes.
        row: of the object.
        places: of the cells on the crop, from -1 to 1.
    """
    xy = ((places + 1) * SIZE - 1) / 2

    def within(box: np.ndarray) -> Bool[Tensor, "g g"]:
        x1, y1, x2, y2 = box.tolist()
        x, y = xy.unbind(dim=-1)
        return (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)

    found = torch.zeros(xy.shape[:2], dtype=torch.bool)
    for box in crops.others_box[row]:
        if box.any():
            found |= within(box)
    return found & ~within(crops.box[row])


def _own(
    crops: Crops, row: int, placements: Sequence[Placement], count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "2 p 2"], Bool[Tensor, " p"]]:
    """Random points between two keypoints on both views, and which of them are on both."""
    seen = torch.from_numpy(crops.xy[row][crops.visible[row]])
    ends = torch.randint(len(seen), (2, count), generator=generator)
    along = torch.rand(count, 1, generator=generator)
    xy = torch.lerp(seen[ends[0]], seen[ends[1]], along)
    there = torch.stack([each.place(xy) for each in placements])
    return there, ((there >= 0) & (there <= SIZE - 1)).all(dim=-1).all(dim=0)


def _limb_points(
    vocabulary: Vocabulary, count: int, generator: torch.Generator
) -> tuple[Int[Tensor, "m 2"], Float[Tensor, "m 1"]]:
    """Any points of any limbs, the same on every view."""
    limbs = torch.tensor(vocabulary.limbs, dtype=torch.long).view(-1, 2)
    count = count if len(limbs) else 0
    chosen = limbs[torch.randint(max(1, len(limbs)), (count,), generator=generator)]
    return chosen, 0.15 + 0.7 * torch.rand(count, 1, generator=generator)


def _with_limbs(
    xy: Float[Tensor, "*v k 2"],
    visible: Bool[Tensor, "*v k"],
    ends: Int[Tensor, "m 2"],
    along: Float[Tensor, "m 1"],
) -> tuple[Float[Tensor, "*v n 2"], Bool[Tensor, "*v n"]]:
    first, second = ends.unbind(dim=1)
    between = torch.lerp(xy[..., first, :], xy[..., second, :], along)
    both = visible[..., first] & visible[..., second]
    return torch.cat([xy, between], dim=-2), torch.cat([visible, both], dim=-1)


def _cover(
    pixels: Float[Tensor, "v 3 s s"],
    xy: Float[Tensor, "v k 2"],
    seen: Bool[Tensor, "v k"],
    visible: Sequence[Bool[Tensor, " k"]],
    turning: Turning,
    generator: torch.Generator,
) -> None:
    """Lay rectangles of noise before some objects, in place; covered keypoints are no longer visible."""
    factor = pixels.shape[-1] / SIZE
    for row in range(len(pixels)):
        chance, wide, high, shade = torch.rand(4, generator=generator).tolist()
        places = xy[row][seen[row]]
        if chance >= turning.cover or len(places) < 4:
            continue
        side = float((places.amax(dim=0) - places.amin(dim=0)).max())
        middle = places[int(torch.randint(len(places), (), generator=generator))]
        middle = middle + 0.1 * side * torch.randn(2, generator=generator)
        half = torch.tensor([_COVER[0] + (_COVER[1] - _COVER[0]) * each for each in (wide, high)]) * side / 2
        low, high_corner = middle - half, middle + half
        x1, y1, x2, y2 = (
            round(min(max(factor * each, 0), pixels.shape[-1]))
            for each in (*low.tolist(), *high_corner.tolist())
        )
        grains = torch.randn(3, max(y2 - y1, 0), max(x2 - x1, 0), generator=generator)
        pixels[row, :, y1:y2, x1:x2] = (shade + 0.2 * grains).clamp(0, 1)
        visible[row] &= ~((xy[row] > low) & (xy[row] < high_corner)).all(dim=1)
