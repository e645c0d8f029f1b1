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
from geoaware.method.types import Box, longer_side
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
class Camera:
    """Makes views of images.

    Attributes:
        views: how images are shown.
        schemas: of each group of images.
        size: side of the canvas and of a view.
        grid: cells a side of the descriptors.
        device: of the pixels.
        generator: of all that is random, on the CPU.
    """

    views: Views
    schemas: Sequence[Schema]
    size: int
    grid: int
    device: torch.device
    generator: torch.Generator

    def batch(self, images: Sequence[Shown], points: int, limbs: int) -> Batch:
        """Two views of every image.

        Each image has so many points that nobody annotated, each group so many on its limbs.
        """
        canvas, views = Canvas(self.size, self.size, self.size), self.views
        shown = [each for each in images for _ in range(2)]
        placed = [self._place(each) for each in shown]
        covers = [self._cover(*each) for each in zip(shown, placed, strict=True)]
        whole = self._rand(len(shown)) >= views.shuffle
        # Labels.
        between = [self._limbs(each, limbs) for each in self.schemas]
        labels, visible = [], []
        for each, placement, cover, intact in zip(shown, placed, covers, whole, strict=True):
            xy, seen = self._labels(each, placement, cover, between[each.group])
            labels.append(canvas.to_grid(xy, self.grid))
            visible.append(seen & intact)
        pairs = zip(images, placed[::2], placed[1::2], strict=True)
        own, known = (
            torch.stack(each) for each in zip(*(self._own(*each, points) for each in pairs), strict=True)
        )
        known &= whole.view(-1, 2).all(dim=1, keepdim=True)
        # Pixels.
        pixels, regions = self._render(images, placed, covers)
        for row in (~whole).nonzero().flatten().tolist():
            pixels[row] = self._shuffled(pixels[row])
            regions[row] = torch.where(regions[row] == OBJECT, OUTSIDE, regions[row])
        # Whose style each view takes on, and what it keeps of its own, by the arcsine law, Beta(1/2, 1/2):
        # mostly near all or near nothing.
        order = torch.randperm(len(shown), generator=self.generator)
        drawn, changed = self._rand(2, len(shown)).unbind()
        kept = torch.where(changed < views.styles, torch.sin(torch.pi / 2 * drawn) ** 2, 1.0)
        groups = [each.group for each in shown]
        own = canvas.to_grid(own, self.grid)
        return Batch(pixels, regions, labels, visible, groups, own, known, (order, kept))

    def _rand(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def _choose(self, end: int, *shape: int) -> Tensor:
        """Whole numbers from 0 on, below the end."""
        return torch.randint(end, shape, generator=self.generator)

    def _place(self, shown: Shown) -> Placement:
        """The object somewhere on the view, most of it inside."""
        views, size = self.views, self.size
        scale, upside, turned, across, down, mirrored = self._rand(6).tolist()
        x1, y1, x2, y2 = shown.box
        side = longer_side(shown.box)
        larger = views.smaller * (views.larger / views.smaller) ** scale
        larger = min(max(larger, _SMALLEST * size / side), _LARGEST * size / side)
        turn = 180.0 if upside < views.upside else views.turn
        reach = min(0.4 * larger * side, size / 2)
        pivot = ((x1 + x2) / 2, (y1 + y2) / 2)
        moved = (pivot[0] + size * _MOVED * (2 * across - 1), pivot[1] + size * _MOVED * (2 * down - 1))
        x, y = (min(max(each, reach), size - reach) for each in moved)
        return Placement(pivot, (x, y), larger, turn * (2 * turned - 1), mirrored < views.mirror)

    def _cover(self, shown: Shown, placement: Placement) -> Box | None:
        """A rectangle of the view, somewhere on the object."""
        chance, wide, high, across, down = self._rand(5).tolist()
        side = placement.scale * longer_side(shown.box)
        width, height = (side * (_COVER[0] + (_COVER[1] - _COVER[0]) * each) for each in (wide, high))
        x = placement.centre[0] + side * (across - 0.5) - width / 2
        y = placement.centre[1] + side * (down - 0.5) - height / 2
        return (x, y, x + width, y + height) if chance < self.views.cover else None

    def _limbs(self, schema: Schema, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Any points of any limbs, as first end, second end and share of the way; none without a skeleton."""
        ends = torch.tensor(schema.skeleton, dtype=torch.long).view(-1, 2)
        count = count if len(ends) else 0
        chosen = ends[self._choose(max(1, len(ends)), count)]
        return chosen[:, 0], chosen[:, 1], self._rand(count, 1)

    def _labels(
        self, shown: Shown, placement: Placement, cover: Box | None, limbs: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Float[Tensor, "k 2"], Bool[Tensor, " k"]]:
        """Keypoints of a view, and points on limbs of which both ends are visible, in canvas pixels.

        Those of a mirrored view are under the names that they have in the mirror.
        """
        schema, (first, second, share) = self.schemas[shown.group], limbs
        names = list(schema.partners) if placement.mirrored else list(range(len(schema)))
        xy, visible = shown.xy[names], shown.visible[names]
        xy = placement.place(torch.cat([xy, torch.lerp(xy[first], xy[second], share)]))
        visible = torch.cat([visible, visible[first] & visible[second]]) & self._inside(xy)
        if cover is not None:
            low, high = torch.tensor(cover).view(2, 2)
            visible = visible & ~((xy > low) & (xy < high)).all(dim=1)
        return xy, visible

    def _own(
        self, shown: Shown, first: Placement, second: Placement, count: int
    ) -> tuple[Float[Tensor, "2 n 2"], Bool[Tensor, " n"]]:
        """Random points between two keypoints, on both views, and which of them count.

        With a mask, those off the object do not.
        """
        seen = shown.xy[shown.visible]
        ends, share = self._choose(len(seen), 2, count), self._rand(count, 1)
        xy = seen[ends[0]] + share * (seen[ends[1]] - seen[ends[0]])
        placed = torch.stack([first.place(xy), second.place(xy)])
        known = self._inside(placed).all(dim=0) & (first.mirrored == second.mirrored)
        if shown.masked:
            columns, rows = xy.round().long().clamp(0, self.size - 1).unbind(dim=1)
            known &= shown.regions[rows, columns] == OBJECT
        return placed, known

    def _inside(self, xy: Float[Tensor, "*n 2"]) -> Bool[Tensor, "*n"]:
        return ((xy >= 0) & (xy <= self.size - 1)).all(dim=-1)

    def _render(
        self, images: Sequence[Shown], placed: Sequence[Placement], covers: Sequence[Box | None]
    ) -> tuple[Float[Tensor, "v 3 s s"], Float[Tensor, "v g g"]]:
        """Pixels and regions of the views."""
        size, count, device = self.size, len(placed), self.device
        pixels, regions = (
            torch.stack(each).to(device).repeat_interleave(2, dim=0).float()
            for each in ([image.pixels for image in images], [image.regions[None] for image in images])
        )
        masked = torch.tensor([each.masked for each in images]).repeat_interleave(2)
        theta = torch.stack([each.sampling(size) for each in placed]).to(device)
        fine = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
        coarse = F.affine_grid(theta, [count, 1, self.grid, self.grid], align_corners=False)
        # Other coats.
        objects = (regions == OBJECT).float()
        recoloured = masked & (self._rand(count) < self.views.recolour)
        backdrops = (~masked).nonzero().flatten()
        pixels = self._tinted(pixels / 255, objects * recoloured.to(device).view(-1, 1, 1, 1), backdrops)
        scenes = F.grid_sample(pixels, fine, align_corners=False)
        found = F.grid_sample(regions, coarse, mode="nearest", align_corners=False)[:, 0]
        # Other images behind the objects.
        before = masked & (self._rand(count) < self.views.background)
        if before.any() and len(backdrops):
            rows = before.nonzero().flatten().to(device)
            behind = scenes[backdrops[self._choose(len(backdrops), len(rows))].to(device)]
            alpha = F.grid_sample(objects[rows], fine[rows], align_corners=False)
            scenes[rows] = alpha * scenes[rows] + (1 - alpha) * behind
            # Whoever stands behind may well be of a kind that is trained on.
            found[rows] = torch.where(found[rows] == OBJECT, OBJECT, UNKNOWN).to(found)
        # Other light, and covers.
        scenes = self._relit(scenes)
        for row, cover in enumerate(covers):
            if cover is not None:
                x1, y1, x2, y2 = (round(min(max(each, 0), size)) for each in cover)
                shade = self._rand(3, 1, 1)
                grains = torch.randn(3, max(y2 - y1, 0), max(x2 - x1, 0), generator=self.generator)
                scenes[row, :, y1:y2, x1:x2] = (shade + 0.2 * grains).clamp(0, 1).to(device)
        return scenes, found

    def _tinted(
        self,
        pixels: Float[Tensor, "v 3 s s"],
        where: Float[Tensor, "v 1 s s"],
        photographs: Int[Tensor, " n"],
    ) -> Float[Tensor, "v 3 s s"]:
        """Other coats: blotches of colour, or what a photograph shows in the light that falls on the coat."""
        count, size = len(pixels), pixels.shape[-1]
        blotches, strength = self._rand(count, 3, 6, 6), self._rand(count, 1, 1, 1)
        colour = F.interpolate(blotches.to(pixels), size=(size, size), mode="bicubic").clamp(0, 1)
        if len(photographs):
            chosen = photographs[self._choose(len(photographs), count)].to(pixels.device)
            grey = pixels.mean(dim=1, keepdim=True)
            area = where.sum(dim=(2, 3), keepdim=True).clamp(min=1)
            usual = (grey * where).sum(dim=(2, 3), keepdim=True) / area
            light = grey / usual.clamp(min=0.05)
            real = (self._rand(count, 1, 1, 1) < 0.5).to(pixels)
            colour = real * (pixels[chosen] * light).clamp(0, 1) + (1 - real) * colour
            strength = 0.6 * strength + 0.3 * real.cpu()
        share = where * strength.to(pixels)
        return pixels * (1 - share) + share * colour

    def _shuffled(self, pixels: Float[Tensor, "3 s s"]) -> Float[Tensor, "3 s s"]:
        """Tiles in another order: the same stuff, but nothing that hangs together."""
        count = int(torch.randint(6, 12, (), generator=self.generator))
        side = pixels.shape[-1] // count
        order = torch.randperm(count * count, generator=self.generator).to(pixels.device)
        mixed = pixels.clone()
        inner = (
            mixed[:, : side * count, : side * count].unflatten(1, (count, side)).unflatten(3, (count, side))
        )
        tiles = inner.transpose(2, 3).flatten(1, 2)[:, order]
        inner.copy_(tiles.unflatten(1, (count, count)).transpose(2, 3))
        return mixed

    def _relit(self, pixels: Float[Tensor, "v 3 s s"]) -> Float[Tensor, "v 3 s s"]:
        """Other light: brightness, contrast, colour, sharpness, noise; grey now and then."""
        count, strength = len(pixels), self.views.colour
        if not strength:
            return pixels

        def factors(width: float, channels: int = 1) -> Tensor:
            return (1 + width * (2 * self._rand(count, channels, 1, 1) - 1)).to(pixels)

        def some(chance: float) -> Tensor:
            return (self._rand(count, 1, 1, 1) < chance).to(pixels)

        grey = pixels.mean(dim=1, keepdim=True)
        pixels = grey + (pixels - grey) * (factors(1.5 * strength) * (1 - some(0.1)))
        casts = factors(0.5 * strength, 3)
        mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
        pixels = ((pixels - mean) * factors(strength) + mean * factors(strength)) * casts
        soft = F.interpolate(F.avg_pool2d(pixels, 3, 3), size=pixels.shape[-2:], mode="bilinear")
        blurred = some(0.2) * factors(1.0).clamp(max=1)
        pixels = pixels * (1 - blurred) + soft * blurred
        noise = self._rand(count, 1, 1, 1) * 0.15 * strength
        grains = torch.Generator(pixels.device).manual_seed(int(self._choose(2**62)))
        drawn = torch.randn(pixels.shape, generator=grains, device=pixels.device)
        return (pixels + noise.to(pixels) * drawn).clamp(0, 1)


def restyled(
    maps: Float[Tensor, "v c h w"], order: Int[Tensor, " v"], kept: Float[Tensor, " v"]
) -> Float[Tensor, "v c h w"]:
    """Maps whose channels' mean and deviation are partly those of other views (MixStyle, Zhou et al. 2021).

    ``order`` says whose style each view takes on, ``kept`` how much of its own stays; maps that keep all are
    the same as before.
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
