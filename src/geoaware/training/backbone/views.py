"""Images as shown: turned, scaled, mirrored with exchanged labels, in other light, before other scenes.

Labels are computed on the CPU, pixels on the device of the training. All that is random comes from one
generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geoaware.method.geometry import Canvas, Placement
from geoaware.method.keypoints import Schema
from geoaware.training.backbone.config import Views
from geoaware.training.backbone.images import OBJECT, OUTSIDE, UNKNOWN, Shown

_LARGEST, _SMALLEST = 1.15, 0.2
"""Longer side of an object on a view, as shares of the canvas: views stay between these."""

_MOVED = 0.2
"""How far an object is moved, as a share of the canvas."""

_COVER = (0.1, 0.35)
"""Sides of a covering rectangle, as shares of the object's longer side on the view."""


@dataclass(frozen=True)
class Batch:
    """Views of a step, two of each image, one after the other.

    Attributes:
        pixels: 0…1, not yet normalised.
        regions: as in `Shown`, at the centres of the grid's cells.
        labels: keypoints of each view by annotation id, then the points on limbs, on the grid.
        visible: which are there.
        groups: number of each view's set of keypoints.
        own: points of each image that nobody annotated, on the grid of its first and of its second view.
        known: which of these are on both views, one not the mirror image of the other.
        styles: views whose style each view takes on, and the share of its own that it keeps.
    """

    pixels: Float[Tensor, "v 3 s s"]
    regions: Float[Tensor, "v g g"]
    labels: list[Float[Tensor, "_ 2"]]
    visible: list[Bool[Tensor, " _"]]
    groups: list[int]
    own: Float[Tensor, "n 2 p 2"]
    known: Bool[Tensor, "n p"]
    styles: tuple[Int[Tensor, " v"], Float[Tensor, " v"]]


@dataclass(frozen=True)
class Limbs:
    """Points on limbs: the first end, the second, and how far from the first."""

    first: Int[Tensor, " m"]
    second: Int[Tensor, " m"]
    share: Float[Tensor, "m 1"]

    @classmethod
    def draw(cls, schema: Schema, count: int, generator: torch.Generator) -> Limbs:
        """Any points of any limbs; none without a skeleton."""
        ends = torch.tensor(schema.skeleton, dtype=torch.long).view(-1, 2)
        count = count if len(ends) else 0
        chosen = ends[torch.randint(max(1, len(ends)), (count,), generator=generator)]
        return cls(chosen[:, 0], chosen[:, 1], torch.rand(count, 1, generator=generator))

    def add(
        self, xy: Float[Tensor, "k 2"], visible: Bool[Tensor, " k"]
    ) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
        """Keypoints with the points that are on limbs of which both ends are visible."""
        between = torch.lerp(xy[self.first], xy[self.second], self.share)
        return torch.cat([xy, between]), torch.cat([visible, visible[self.first] & visible[self.second]])


def make_batch(
    images: Sequence[Shown],
    schemas: Sequence[Schema],
    views: Views,
    points: int,
    limbs: int,
    grid: int,
    generator: torch.Generator,
    device: torch.device,
) -> Batch:
    """Two views of every image.

    Args:
        images: on their canvases.
        schemas: of each group.
        views: how images are shown.
        points: that nobody annotated, an image.
        limbs: points on limbs, a group.
        grid: cells a side of the descriptors.
        generator: of all that is random, on the CPU.
        device: of the pixels.
    """
    size = images[0].pixels.shape[-1]
    canvas = Canvas(size, size, size)
    placements = [[_place(each, views, size, generator) for _ in range(2)] for each in images]
    shown = [each for each in images for _ in range(2)]
    placed = [each for pair in placements for each in pair]
    covers = [_cover(*each, views, generator) for each in zip(shown, placed, strict=True)]
    whole = torch.rand(len(shown), generator=generator) >= views.shuffle
    between = [Limbs.draw(each, limbs, generator) for each in schemas]
    labels, visible = [], []
    for row, (each, placement, cover) in enumerate(zip(shown, placed, covers, strict=True)):
        xy, seen = _labels(each, placement, cover, schemas[each.group], between[each.group], size)
        labels.append(canvas.to_grid(xy, grid))
        visible.append(seen & whole[row])
    ends = [_own(*each, points, generator) for each in zip(images, placements, strict=True)]
    own = torch.stack([places for places, _ in ends])
    known = torch.stack([counted for _, counted in ends]) & whole.view(-1, 2).all(dim=1, keepdim=True)
    pixels, regions = _render(images, placed, covers, views, grid, generator, device)
    for row in (~whole).nonzero().flatten().tolist():
        pixels[row] = _shuffled(pixels[row], generator)
        regions[row] = torch.where(regions[row] == OBJECT, OUTSIDE, regions[row])
    groups = [each.group for each in shown]
    styles = _styles(len(shown), views.styles, generator)
    return Batch(pixels, regions, labels, visible, groups, canvas.to_grid(own, grid), known, styles)


def _styles(
    count: int, chance: float, generator: torch.Generator
) -> tuple[Int[Tensor, " v"], Float[Tensor, " v"]]:
    """Whose style each view takes on, and what it keeps of its own: mostly near all or near nothing."""
    order = torch.randperm(count, generator=generator)
    drawn, changed = torch.rand(2, count, generator=generator).unbind()
    # The arcsine law, Beta(1/2, 1/2).
    kept = torch.sin(torch.pi / 2 * drawn) ** 2
    return order, torch.where(changed < chance, kept, torch.ones_like(kept))


def restyled(
    maps: Float[Tensor, "v c h w"], order: Int[Tensor, " v"], kept: Float[Tensor, " v"]
) -> Float[Tensor, "v c h w"]:
    """Maps whose channels' mean and deviation are partly those of other views (MixStyle, Zhou et al. 2021).

    Args:
        maps: of an early layer.
        order: whose style each view takes on.
        kept: share of its own style; maps of which all is kept are the same as before.
    """
    if bool((kept == 1).all()):
        return maps
    with torch.no_grad():
        deviation, mean = torch.std_mean(maps.float(), dim=(2, 3), keepdim=True)
        deviation = deviation + 1e-3
        share = kept.to(deviation).view(-1, 1, 1, 1)
        factor = torch.lerp(deviation[order] / deviation, torch.ones_like(deviation), share)
        shift = torch.lerp(mean[order], mean, share) - factor * mean
    return maps * factor.to(maps.dtype) + shift.to(maps.dtype)


def _place(shown: Shown, views: Views, size: int, generator: torch.Generator) -> Placement:
    """The object somewhere on the view, most of it inside."""
    scale, upside, turned, across, down, mirrored = torch.rand(6, generator=generator).tolist()
    x1, y1, x2, y2 = shown.box
    side = max(x2 - x1, y2 - y1)
    larger = views.smaller * (views.larger / views.smaller) ** scale
    larger = min(max(larger, _SMALLEST * size / side), _LARGEST * size / side)
    turn = 180.0 if upside < views.upside else views.turn
    reach = min(0.4 * larger * side, size / 2)
    pivot = ((x1 + x2) / 2, (y1 + y2) / 2)
    moved = (pivot[0] + size * _MOVED * (2 * across - 1), pivot[1] + size * _MOVED * (2 * down - 1))
    x, y = (min(max(each, reach), size - reach) for each in moved)
    return Placement(pivot, (x, y), larger, turn * (2 * turned - 1), mirrored < views.mirror)


Rectangle = tuple[float, float, float, float]


def _cover(shown: Shown, placement: Placement, views: Views, generator: torch.Generator) -> Rectangle | None:
    """A rectangle of the view, somewhere on the object."""
    chance, wide, high, across, down = torch.rand(5, generator=generator).tolist()
    side = placement.scale * max(shown.box[2] - shown.box[0], shown.box[3] - shown.box[1])
    width, height = (side * (_COVER[0] + (_COVER[1] - _COVER[0]) * each) for each in (wide, high))
    x = placement.centre[0] + side * (across - 0.5) - width / 2
    y = placement.centre[1] + side * (down - 0.5) - height / 2
    return (x, y, x + width, y + height) if chance < views.cover else None


def _labels(
    shown: Shown,
    placement: Placement,
    cover: Rectangle | None,
    schema: Schema,
    limbs: Limbs,
    size: int,
) -> tuple[Float[Tensor, "k 2"], Bool[Tensor, " k"]]:
    """Keypoints and points on limbs of a view, in canvas pixels.

    Those of a mirrored view are under the names that they have in the mirror.
    """
    names = list(schema.partners) if placement.mirrored else list(range(len(schema)))
    xy, visible = limbs.add(shown.xy[names], shown.visible[names])
    xy = placement.place(xy)
    visible = visible & _inside(xy, size)
    if cover is not None:
        low, high = torch.tensor(cover[:2]), torch.tensor(cover[2:])
        visible = visible & ~((xy > low) & (xy < high)).all(dim=1)
    return xy, visible


def _own(
    shown: Shown, placements: Sequence[Placement], count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "2 n 2"], Bool[Tensor, " n"]]:
    """Random points between two keypoints, on both views, and which of them count.

    With a mask, those off the object do not.
    """
    seen, size = shown.xy[shown.visible], shown.regions.shape[0]
    ends = torch.randint(len(seen), (2, count), generator=generator)
    share = torch.rand(count, 1, generator=generator)
    xy = seen[ends[0]] + share * (seen[ends[1]] - seen[ends[0]])
    placed = torch.stack([each.place(xy) for each in placements])
    known = _inside(placed, size).all(dim=0) & (placements[0].mirrored == placements[1].mirrored)
    if shown.masked:
        columns, rows = xy.round().long().clamp(0, size - 1).unbind(dim=1)
        known &= shown.regions[rows, columns] == OBJECT
    return placed, known


def _inside(xy: Float[Tensor, "*n 2"], size: int) -> Bool[Tensor, "*n"]:
    return ((xy >= 0) & (xy <= size - 1)).all(dim=-1)


def _render(
    images: Sequence[Shown],
    placed: Sequence[Placement],
    covers: Sequence[Rectangle | None],
    views: Views,
    grid: int,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Float[Tensor, "v 3 s s"], Float[Tensor, "v g g"]]:
    """Pixels and regions of the views."""
    size, count = images[0].pixels.shape[-1], len(placed)
    pixels = (
        torch.stack([each.pixels for each in images]).to(device).repeat_interleave(2, dim=0).float() / 255
    )
    regions = torch.stack([each.regions for each in images]).to(device).repeat_interleave(2, dim=0)
    regions = regions.float()[:, None]
    masked = torch.tensor([each.masked for each in images]).repeat_interleave(2)
    theta = torch.stack([each.sampling(size) for each in placed]).to(device)
    fine = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    coarse = F.affine_grid(theta, [count, 1, grid, grid], align_corners=False)
    object_mask = (regions == OBJECT).float()
    recoloured = masked & (torch.rand(count, generator=generator) < views.recolour)
    backdrops = (~masked).nonzero().flatten()
    where = object_mask * recoloured.to(device).view(-1, 1, 1, 1)
    pixels = _tinted(pixels, where, backdrops, generator)
    scenes = F.grid_sample(pixels, fine, align_corners=False)
    found = F.grid_sample(regions, coarse, mode="nearest", align_corners=False)[:, 0]
    before = masked & (torch.rand(count, generator=generator) < views.background)
    if before.any() and len(backdrops):
        rows = before.nonzero().flatten()
        chosen = backdrops[torch.randint(len(backdrops), (len(rows),), generator=generator)]
        alpha = F.grid_sample(object_mask[rows.to(device)], fine[rows.to(device)], align_corners=False)
        behind = scenes[chosen.to(device)]
        scenes[rows.to(device)] = alpha * scenes[rows.to(device)] + (1 - alpha) * behind
        # Whoever stands behind may well be of a kind that is trained on.
        there = found[rows.to(device)]
        found[rows.to(device)] = torch.where(there == OBJECT, there, torch.full_like(there, UNKNOWN))
    scenes = _relit(scenes, views.colour, generator)
    for row, cover in enumerate(covers):
        if cover is not None:
            x1, y1, x2, y2 = (round(min(max(each, 0), size)) for each in cover)
            shade = torch.rand(3, 1, 1, generator=generator)
            grains = torch.randn(3, max(y2 - y1, 0), max(x2 - x1, 0), generator=generator)
            scenes[row, :, y1:y2, x1:x2] = (shade + 0.2 * grains).clamp(0, 1).to(device)
    return scenes, found


def _tinted(
    pixels: Float[Tensor, "v 3 s s"],
    where: Float[Tensor, "v 1 s s"],
    photographs: Int[Tensor, " n"],
    generator: torch.Generator,
) -> Float[Tensor, "v 3 s s"]:
    """Other coats: blotches of colour, or what a photograph shows in the light that falls on the coat."""
    count, size = len(pixels), pixels.shape[-1]
    blotches = torch.rand(count, 3, 6, 6, generator=generator)
    strength = torch.rand(count, 1, 1, 1, generator=generator)
    colour = F.interpolate(blotches.to(pixels), size=(size, size), mode="bicubic").clamp(0, 1)
    if len(photographs):
        chosen = photographs[torch.randint(len(photographs), (count,), generator=generator)].to(pixels.device)
        grey = pixels.mean(dim=1, keepdim=True)
        area = where.sum(dim=(2, 3), keepdim=True).clamp(min=1)
        usual = (grey * where).sum(dim=(2, 3), keepdim=True) / area
        light = grey / usual.clamp(min=0.05)
        real = (torch.rand(count, 1, 1, 1, generator=generator) < 0.5).to(pixels)
        colour = real * (pixels[chosen] * light).clamp(0, 1) + (1 - real) * colour
        strength = 0.6 * strength + 0.3 * real.cpu()
    share = where * strength.to(pixels)
    return pixels * (1 - share) + share * colour


def _shuffled(pixels: Float[Tensor, "3 s s"], generator: torch.Generator) -> Float[Tensor, "3 s s"]:
    """Tiles in another order: the same stuff, but nothing that hangs together."""
    size = pixels.shape[-1]
    count = int(torch.randint(6, 12, (), generator=generator))
    side = size // count
    kept = pixels[:, : side * count, : side * count]
    tiles = kept.unfold(1, side, side).unfold(2, side, side).flatten(1, 2)
    tiles = tiles[:, torch.randperm(count * count, generator=generator).to(pixels.device)]
    mixed = pixels.clone()
    mixed[:, : side * count, : side * count] = (
        tiles.view(3, count, count, side, side).transpose(2, 3).reshape(3, side * count, side * count)
    )
    return mixed


def _relit(pixels: Float[Tensor, "v 3 s s"], strength: float, generator: torch.Generator) -> Tensor:
    """Other light: brightness, contrast, colour, sharpness, noise; grey now and then."""
    if not strength:
        return pixels
    count = len(pixels)

    def factors(width: float) -> Tensor:
        drawn = 2 * torch.rand(count, 1, 1, 1, generator=generator) - 1
        return (1 + width * drawn).to(pixels)

    def some(chance: float) -> Tensor:
        return (torch.rand(count, 1, 1, 1, generator=generator) < chance).to(pixels)

    grey = pixels.mean(dim=1, keepdim=True)
    saturation = factors(1.5 * strength) * (1 - some(0.1))
    pixels = grey + (pixels - grey) * saturation
    casts = 1 + 0.5 * strength * (2 * torch.rand(count, 3, 1, 1, generator=generator) - 1)
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = ((pixels - mean) * factors(strength) + mean * factors(strength)) * casts.to(pixels)
    soft = F.interpolate(F.avg_pool2d(pixels, 3, 3), size=pixels.shape[-2:], mode="bilinear")
    blurred = some(0.2) * factors(1.0).clamp(max=1)
    pixels = pixels * (1 - blurred) + soft * blurred
    noise = torch.rand(count, 1, 1, 1, generator=generator) * 0.15 * strength
    grains = torch.Generator(pixels.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    drawn = torch.randn(pixels.shape, generator=grains, device=pixels.device)
    return (pixels + noise.to(pixels) * drawn).clamp(0, 1)
