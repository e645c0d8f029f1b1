"""What a step shows: views of annotated objects of all data sets, and of images that show no such object.

An object is turned by any angle, scaled, mirrored with exchanged labels, partly covered and in other light.
One with a mask is also shown before other images and in another coat. All that is random comes from one
generator, so that a step is decided by its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geoaware.features.framed import UPRIGHT
from geoaware.features.tuned import STRIDE
from geoaware.method.geometry import Canvas, Placement
from geoaware.training.backbone.config import Views
from geoaware.training.backbone.crops import OBJECT, SIZE, UNKNOWN, Crops
from geoaware.training.backbone.unlabelled import Unlabelled
from geoaware.training.backbone.vocabulary import Vocabulary

_MOVED = 0.15
"""How far an object is moved, as a share of the view."""

_COVER = (0.1, 0.35)
"""Sides of a covering rectangle, as shares of the longer side of the keypoints' box."""

_NEARLY_UPRIGHT = 30.0
"""Degrees by which a view may be off its nearest quarter turn and still count as turned by it."""

_ON_LIMB = (0.15, 0.85)
"""Where points on limbs lie, as shares of the way from one end to the other."""


@dataclass(frozen=True)
class Batch:
    """Views of annotated objects; places are grid positions.

    Attributes:
        pixels: 0 to 1.
        negatives: views that show nothing that is trained on, 0 to 1.
        regions: what each cell shows, as in `Crops`.
        turns: of the views and then the negatives, the place in `UPRIGHT` of the turn that makes each stand
            upright; -1 where it is none of these.
        xy: keypoints by class, then points on limbs.
        visible: which are there.
        elsewhere: cells that show another object of the kind, where a match is not taken for wrong.
        others: places of other objects' keypoints by class, then points on limbs.
        others_visible: which are there.
        pairs: rows of views that show one object twice, both mirrored or neither.
        own: points between keypoints on both views of each of these.
        known: which of these are on both.
    """

    pixels: Float[Tensor, "v 3 s s"]
    negatives: Float[Tensor, "w 3 s s"]
    regions: Float[Tensor, "v g g"]
    turns: Int[Tensor, " t"]
    xy: Float[Tensor, "v n 2"]
    visible: Bool[Tensor, "v n"]
    elsewhere: Bool[Tensor, "v g g"]
    others: Float[Tensor, "v o n 2"]
    others_visible: Bool[Tensor, "v o n"]
    pairs: Int[Tensor, "m 2"]
    own: Float[Tensor, "m 2 p 2"]
    known: Bool[Tensor, "m p"]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A batch on a device, but for what says which keypoints count.

    That stays on the CPU: to ask a GPU for it again and again would keep it waiting.
    """
    stays = "visible", "pairs"
    return replace(
        batch, **{name: each.to(device) for name, each in vars(batch).items() if name not in stays}
    )


@dataclass(frozen=True)
class Share:
    """Crops of one data set: so many objects a step, of which the first few are shown twice.

    They are of so many categories at most, if that is given.
    """

    crops: Crops
    objects: int
    twice: int
    categories: int | None = None


@dataclass(frozen=True)
class Camera:
    """Makes views.

    Attributes:
        views: how objects are shown.
        vocabulary: of the classes.
        unlabelled: images for backgrounds and for views that show no object.
        size: side of a view in pixels.
        generator: of all that is random.
        stride: pixels a cell of the network's map.
        crop: side of the crops in pixels.
    """

    views: Views
    vocabulary: Vocabulary
    unlabelled: Unlabelled
    size: int
    generator: torch.Generator
    stride: int = STRIDE
    crop: int = SIZE

    @property
    def cells(self) -> int:
        """A side of the network's map of a view."""
        return self.size // self.stride

    def batch(self, shares: Sequence[Share], limbs: int, points: int, negatives: int) -> Batch:
        """The views of a step.

        Args:
            shares: of each data set.
            limbs: points on limbs, of any objects.
            points: that nobody annotated, on objects shown twice.
            negatives: views that show no object.
        """
        chosen = [(share.crops, *each) for share in shares for each in self._objects(share)]
        ends, along = self._limb_points(limbs)
        shown, pairs, own, known = [], [], [], []
        for crops, row, twice in chosen:
            placements: list[Placement] = []
            for _ in range(1 + twice):
                placement = self._place(crops, row)
                # Two views of one object agree in being mirrored: else there is no telling its points apart.
                if placements:
                    placement = replace(placement, mirrored=placements[0].mirrored)
                placements.append(placement)
                shown.append(self._show(crops, row, placement))
            if twice:
                pairs.append((len(shown) - 2, len(shown) - 1))
                places, counted = self._own(crops, row, placements, points)
                own.append(places)
                known.append(counted)
        stacked = {name: torch.stack([each[name] for each in shown]) for name in shown[0]}
        pixels = self._relit(stacked["pixels"], self.views.colour)
        self._cover(pixels, stacked["xy"], stacked["visible"])
        xy, visible = _with_limbs(stacked["xy"], stacked["visible"], ends, along)
        others, others_visible = _with_limbs(stacked["others"], stacked["others_visible"], ends, along)
        on_grid = Canvas(self.crop, self.crop, self.crop).to_grid
        others_seen, others_turns = self._negatives(negatives)
        return Batch(
            pixels,
            others_seen,
            stacked["regions"],
            torch.cat([stacked["turn"], others_turns]),
            on_grid(xy, self.cells),
            visible,
            stacked["elsewhere"],
            on_grid(others, self.cells),
            others_visible,
            torch.tensor(pairs, dtype=torch.long).view(-1, 2),
            on_grid(torch.stack(own), self.cells) if own else torch.zeros(0, 2, points, 2),
            torch.stack(known) if known else torch.zeros(0, points, dtype=torch.bool),
        )

    def _negatives(self, count: int) -> tuple[Float[Tensor, "w 3 s s"], Int[Tensor, " w"]]:
        """Parts of images that surely show nothing that is trained on, turned, and what turns them back."""
        if not count:
            return torch.zeros(0, 3, self.size, self.size), torch.zeros(0, dtype=torch.long)
        rows = self.unlabelled.negatives
        chosen = rows[self._choose(len(rows), count).numpy()]
        # Turned clockwise, so that the turn in the opposite direction makes them upright.
        turns = self._choose(len(UPRIGHT), count)
        parts = [
            torch.rot90(self._part(int(row), self.size), -turn, (1, 2))
            for row, turn in zip(chosen, turns.tolist(), strict=True)
        ]
        return self._relit(torch.stack(parts), self.views.colour), turns

    def _backdrop(self, size: int) -> Float[Tensor, "3 s s"]:
        """Some part of some image without labels."""
        return self._part(int(self._choose(len(self.unlabelled.pixels))), size)

    def _part(self, row: int, size: int) -> Float[Tensor, "3 s s"]:
        whole = self.unlabelled.pixels[row]
        y, x = self._choose(len(whole) - size + 1, 2).tolist()
        return _cut(whole, y, x, size)

    def _objects(self, share: Share) -> list[tuple[int, bool]]:
        """Rows of random objects, every category as often, and whether each is shown twice."""
        members = share.crops.members
        order = torch.randperm(len(members), generator=self.generator).tolist()[: share.categories]
        found = []
        for place in range(share.objects):
            rows = members[order[place % len(order)]]
            found.append((int(rows[int(self._choose(len(rows)))]), place < share.twice))
        return found

    def _place(self, crops: Crops, row: int) -> Placement:
        """The object somewhere on the view, in pixels of a view as large as a crop."""
        views, crop = self.views, self.crop
        scale, upside, turned, across, down, mirrored = self._rand(6).tolist()
        x1, y1, x2, y2 = crops.box[row].tolist()
        side = max(x2 - x1, y2 - y1, 1.0)
        wanted = views.smaller * (views.larger / views.smaller) ** scale * crop
        turn = 180.0 if upside < views.upside else views.turn
        reach = min(0.4 * wanted, crop / 2)
        moved = [crop * (0.5 + _MOVED * (2 * each - 1)) for each in (across, down)]
        x, y = (min(max(each, reach), crop - reach) for each in moved)
        pivot = ((x1 + x2) / 2, (y1 + y2) / 2)
        return Placement(pivot, (x, y), wanted / side, turn * (2 * turned - 1), mirrored < views.mirror)

    def _show(self, crops: Crops, row: int, placement: Placement) -> dict[str, Tensor]:
        """Pixels and labels of one view, places still in pixels of the crop."""
        pixels = _cut(crops.pixels[row], 0, 0, self.crop)[None]
        regions = torch.from_numpy(np.array(crops.regions[row]))[None, None].float()
        theta = placement.sampling(self.crop)[None]
        coarse = F.affine_grid(theta, [1, 1, self.cells, self.cells], align_corners=False)
        # Beyond the crop nobody knows.
        there = F.grid_sample(torch.ones_like(regions), coarse, mode="nearest", align_corners=False)
        found = F.grid_sample(regions, coarse, mode="nearest", align_corners=False)
        found = torch.where(there == 0, torch.full_like(found, UNKNOWN), found)[0, 0]
        before, recoloured = self._rand(2).tolist()
        # Without other images there is nothing to show an object in front of.
        masked, where = bool(crops.masked[row] and len(self.unlabelled.pixels)), (regions == OBJECT).float()
        turn = _turn_back(placement.degrees)
        if masked and recoloured < self.views.recolour:
            pixels = self._tinted(pixels, where, self._backdrop(self.crop)[None])
        shown = self._sampled(pixels, theta, placement.scale)
        if masked and before < self.views.background:
            alpha = self._sampled(where, theta, placement.scale)
            shown = alpha * shown + (1 - alpha) * self._backdrop(self.size)
            # Whatever stands behind may well be of a kind that is trained on.
            found = torch.where(found == OBJECT, found, torch.full_like(found, UNKNOWN))
            turn = -1
        names = list(self.vocabulary.partners if placement.mirrored else range(len(self.vocabulary)))
        xy, visible = self._placed(crops.xy[row], crops.visible[row], names, placement)
        others, others_visible = self._placed(
            crops.others_xy[row], crops.others_visible[row], names, placement
        )
        return {
            "pixels": shown[0],
            "regions": found,
            "turn": torch.tensor(turn),
            "xy": xy,
            "visible": visible,
            "elsewhere": _elsewhere(crops, row, ((coarse[0] + 1) * self.crop - 1) / 2),
            "others": others,
            "others_visible": others_visible,
        }

    def _sampled(
        self, pixels: Float[Tensor, "1 c s s"], theta: Float[Tensor, "1 2 3"], scale: float
    ) -> Float[Tensor, "1 c t t"]:
        """The crop as it is placed; shrunk in two steps where it is made much smaller."""
        if scale * self.size / self.crop < 0.6:
            pixels = F.avg_pool2d(pixels, 2)
        fine = F.affine_grid(theta, [1, pixels.shape[1], self.size, self.size], align_corners=False)
        return F.grid_sample(pixels, fine, align_corners=False)

    def _placed(
        self, xy: np.ndarray, visible: np.ndarray, names: list[int], placement: Placement
    ) -> tuple[Float[Tensor, "*n 2"], Bool[Tensor, "*n"]]:
        """Keypoints on the view under the names they have there; those off it are not visible."""
        there = placement.place(torch.from_numpy(xy[..., names, :]))
        return there, torch.from_numpy(visible[..., names]) & self._inside(there)

    def _inside(self, xy: Float[Tensor, "*n 2"]) -> Bool[Tensor, "*n"]:
        return ((xy >= 0) & (xy <= self.crop - 1)).all(dim=-1)

    def _own(
        self, crops: Crops, row: int, placements: Sequence[Placement], count: int
    ) -> tuple[Float[Tensor, "2 p 2"], Bool[Tensor, " p"]]:
        """Random points between two keypoints on both views, and which of them are on both."""
        seen = torch.from_numpy(crops.xy[row][crops.visible[row]])
        ends = torch.randint(len(seen), (2, count), generator=self.generator)
        xy = torch.lerp(seen[ends[0]], seen[ends[1]], self._rand(count, 1))
        there = torch.stack([each.place(xy) for each in placements])
        return there, self._inside(there).all(dim=0)

    def _limb_points(self, count: int) -> tuple[Int[Tensor, "m 2"], Float[Tensor, "m 1"]]:
        """Any points of any limbs, the same on every view: their ends, and how far from the first."""
        limbs = torch.tensor(self.vocabulary.limbs, dtype=torch.long).view(-1, 2)
        count = count if len(limbs) else 0
        chosen = limbs[self._choose(max(1, len(limbs)), count)]
        low, high = _ON_LIMB
        return chosen, low + (high - low) * self._rand(count, 1)

    def _cover(
        self,
        pixels: Float[Tensor, "v 3 s s"],
        xy: Float[Tensor, "v k 2"],
        visible: Bool[Tensor, "v k"],
    ) -> None:
        """Lay rectangles of noise before some objects; covered keypoints are no longer visible. In place."""
        factor = self.size / self.crop
        for row in range(len(pixels)):
            chance, wide, high, shade = self._rand(4).tolist()
            places = xy[row][visible[row]]
            if chance >= self.views.cover or len(places) < 4:
                continue
            side = float((places.amax(dim=0) - places.amin(dim=0)).max())
            middle = places[int(self._choose(len(places)))]
            middle = middle + 0.1 * side * torch.randn(2, generator=self.generator)
            half = torch.tensor([_COVER[0] + (_COVER[1] - _COVER[0]) * each for each in (wide, high)])
            corners = torch.stack([middle - half * side / 2, middle + half * side / 2])
            (x1, y1), (x2, y2) = (
                [round(min(max(factor * each, 0), self.size)) for each in corner]
                for corner in corners.tolist()
            )
            grains = torch.randn(3, max(y2 - y1, 0), max(x2 - x1, 0), generator=self.generator)
            pixels[row, :, y1:y2, x1:x2] = (shade + 0.2 * grains).clamp(0, 1)
            visible[row] &= ~((xy[row] > corners[0]) & (xy[row] < corners[1])).all(dim=1)

    def _tinted(
        self,
        pixels: Float[Tensor, "1 3 s s"],
        where: Float[Tensor, "1 1 s s"],
        photograph: Float[Tensor, "1 3 s s"],
    ) -> Float[Tensor, "1 3 s s"]:
        """Another coat: blotches of colour, or what a photograph shows, in the light on the coat."""
        blotches, strength = self._rand(1, 3, 6, 6), self._rand(1, 1, 1, 1)
        real = (self._rand(1, 1, 1, 1) < 0.5).float()
        colour = F.interpolate(blotches, size=pixels.shape[-2:], mode="bicubic").clamp(0, 1)
        grey = pixels.mean(dim=1, keepdim=True)
        usual = (grey * where).sum() / where.sum().clamp(min=1)
        light = grey / usual.clamp(min=0.05)
        colour = real * (photograph * light).clamp(0, 1) + (1 - real) * colour
        share = where * (0.6 * strength + 0.3 * real)
        return pixels * (1 - share) + share * colour

    def _relit(self, pixels: Float[Tensor, "v 3 s s"], strength: float) -> Float[Tensor, "v 3 s s"]:
        """Other light: brightness, contrast, colour, sharpness, noise; grey now and then."""
        count = len(pixels)
        if not strength:
            return pixels

        def factors(width: float, channels: int = 1) -> Tensor:
            return 1 + width * (2 * self._rand(count, channels, 1, 1) - 1)

        def some(chance: float) -> Tensor:
            return (self._rand(count, 1, 1, 1) < chance).float()

        grey = pixels.mean(dim=1, keepdim=True)
        pixels = grey + (pixels - grey) * (factors(1.5 * strength) * (1 - some(0.1)))
        casts = factors(0.5 * strength, 3)
        mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
        pixels = ((pixels - mean) * factors(strength) + mean * factors(strength)) * casts
        soft = F.interpolate(F.avg_pool2d(pixels, 3, 3), size=pixels.shape[-2:], mode="bilinear")
        blurred = some(0.2) * factors(1.0).clamp(max=1)
        pixels = pixels * (1 - blurred) + soft * blurred
        noise = self._rand(count, 1, 1, 1) * 0.15 * strength
        grains = torch.Generator().manual_seed(int(self._choose(2**62)))
        return (pixels + noise * torch.randn(pixels.shape, generator=grains)).clamp(0, 1)

    def _rand(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def _choose(self, below: int, *count: int) -> Tensor:
        return torch.randint(below, count, generator=self.generator)


def _turn_back(degrees: float) -> int:
    """The place in `UPRIGHT` of what undoes a clockwise turn; -1 if it is far from a quarter turn."""
    quarters = round(degrees / 90)
    return quarters % len(UPRIGHT) if abs(degrees - 90 * quarters) <= _NEARLY_UPRIGHT else -1


def _cut(pixels: np.ndarray, y: int, x: int, size: int) -> Float[Tensor, "3 s s"]:
    """A square of stored pixels, from 0 to 1."""
    cut = np.array(pixels[y : y + size, x : x + size])
    return torch.from_numpy(cut).permute(2, 0, 1).float() / 255


def _elsewhere(crops: Crops, row: int, xy: Float[Tensor, "g g 2"]) -> Bool[Tensor, "g g"]:
    """Cells in the box of another object of the kind and not in the object's own.

    ``xy`` says where the cells are, in pixels of the crop.
    """
    corners = torch.from_numpy(np.concatenate([crops.box[row][None], crops.others_box[row]]))
    low, high = corners[:, None, None, :2], corners[:, None, None, 2:]
    # Where there is no other object the corners are one point.
    within = ((xy >= low) & (xy <= high) & (low < high)).all(dim=-1)
    return within[1:].any(dim=0) & ~within[0]


def _with_limbs(
    xy: Float[Tensor, "*v k 2"],
    visible: Bool[Tensor, "*v k"],
    ends: Int[Tensor, "m 2"],
    along: Float[Tensor, "m 1"],
) -> tuple[Float[Tensor, "*v n 2"], Bool[Tensor, "*v n"]]:
    """Keypoints with the points on limbs, which are visible where both ends are."""
    first, second = ends.unbind(dim=1)
    between = torch.lerp(xy[..., first, :], xy[..., second, :], along)
    both = visible[..., first] & visible[..., second]
    return torch.cat([xy, between], dim=-2), torch.cat([visible, both], dim=-1)
