"""The facade: images and points in, matches out. Encode an image once, query it often.

Example:
    >>> matcher = Matcher.from_pretrained("lite", device="cpu")        # doctest: +SKIP
    >>> result = matcher.match("cat1.jpg", "cat2.jpg", [(120, 85)])    # doctest: +SKIP
    >>> result.points, result.confidence, result.pose                  # doctest: +SKIP
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from geoaware._version import __version__
from geoaware.data.images import ImageLike, load_image
from geoaware.features import Extractor, check_name, load_extractor
from geoaware.features.framed import FramedExtractor, cut_out, frame
from geoaware.features.refined import RefinedExtractor, refine
from geoaware.field import Field, between
from geoaware.method.alignment import (
    CANDIDATES,
    Alignment,
    MirroredPoints,
    PoseRule,
    best_pose,
    match_posed,
    mirror_points,
    pose_distances,
)
from geoaware.method.dense import lattice, mesh
from geoaware.method.geometry import Canvas, PointsLike, Pose, clamp_points, pose_image
from geoaware.method.keypoints.schema import flip_partners
from geoaware.method.matching import MatchSettings
from geoaware.method.post_processor import PostProcessor
from geoaware.method.types import Box, FeatureMap
from geoaware.presets import choose_post_processor, defaults_of, preset_extractor
from geoaware.result import Encoded, MatchResult, check_points, mask_on_canvas
from geoaware.runs.errors import InputError, NotFiniteError
from geoaware.runs.recent import Recent

_KEPT = 1 << 30
"""Bytes of encoded images that `Matcher.match_pairs` keeps."""


class Matcher:
    """Extractor, post-processor and settings behind one method, `match`.

    Args:
        extractor: what encodes images.
        settings: how similarity becomes position; as measured (`defaults_of`) when not given.
        pose: ``"auto"`` (as measured), ``"off"``, ``"flip"`` or ``"rotate"``.
        pose_rule: how the pose is chosen; as measured when not given.
        post_processor: refines the features, with its weights as they are now. It is moved to the extractor's
            device and put in evaluation mode.
        blend: share of the refined descriptors in the similarity, the rest being the extractor's own: 1
            matches the refined alone, 0 is the same as no post-processor. As measured when not given.
        zoom: ``"auto"`` looks for a small object in each image and encodes that part alone; ``"off"`` does
            not. As measured when not given.
        upright: ``"auto"`` turns images that lie on their side or stand on their head; ``"off"``.

    Attributes:
        extractor: of the features that are matched; a `RefinedExtractor` with a post-processor, in a
            `FramedExtractor` with ``zoom`` or ``upright``.
        defaults: what stands for all that was not given, as measured.

    Raises:
        InputError: unknown pose, a blend out of range or without a post-processor, a post-processor that
            was trained on other features, or an extractor that cannot look for ``zoom`` and ``upright``.
    """

    def __init__(
        self,
        extractor: Extractor,
        settings: MatchSettings | None = None,
        pose: str = "auto",
        pose_rule: PoseRule | None = None,
        post_processor: PostProcessor | None = None,
        blend: float | None = None,
        zoom: str | None = None,
        upright: str = "off",
    ) -> None:
        network = None if blend == 0 else post_processor
        self.defaults = defaults_of(extractor.name, network or extractor.post_processor)
        share = self.defaults.blend if network is not None and blend is None else blend
        if zoom is None:
            zoom = "off" if isinstance(extractor, FramedExtractor) else self.defaults.zoom
        self.extractor = frame(refine(extractor, network, share), zoom, upright)
        self.settings = settings or self.defaults.match
        self.pose_rule = pose_rule or self.defaults.pose_rule
        self.pose = self._resolve(pose)
        _check_window(self.settings, self.extractor.layout.grid)

    @classmethod
    def from_pretrained(
        cls,
        name: str = "lite",
        *,
        pose: str = "auto",
        pose_rule: PoseRule | None = None,
        settings: MatchSettings | None = None,
        post_processor: str | os.PathLike[str] | PostProcessor | None = "auto",
        blend: float | None = None,
        zoom: str | None = None,
        upright: str = "off",
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "fp32",
        **extractor_settings: Any,
    ) -> Matcher:
        """A matcher by one name: ``"lite"``, ``"lite-frozen"`` or the name of any extractor.

        Args:
            name: ``"lite"`` is the embedded network that was trained on people and animals;
                ``"lite-frozen"`` brings the paper's post-processor on frozen features; the name of an
                extractor gives its features as they are.
            pose: see `Matcher`.
            pose_rule: see `Matcher`.
            settings: see `Matcher`.
            post_processor: ``"auto"``, as the name has it; ``"none"``; or one to use: a saved folder, a
                released checkpoint (``.PTH``), the name of a shipped one, a hub id, or the network itself.
            blend: see `Matcher`.
            zoom: see `Matcher`.
            upright: see `Matcher`.
            device: of extractor and post-processor.
            dtype: that the extractor computes in; the post-processor computes in float32.
            **extractor_settings: see `load_extractor`.

        Raises:
            InputError: unknown name or setting, missing weights, a post-processor for another extractor; the
                message says what to do.
        """
        extractor_name = preset_extractor(name)
        check_name(extractor_name)
        network = choose_post_processor(name, post_processor)
        extractor = load_extractor(extractor_name, device=device, dtype=dtype, **extractor_settings)
        return cls(extractor, settings, pose, pose_rule, network, blend, zoom, upright)

    @property
    def post_processor(self) -> PostProcessor | None:
        """The network that refines the features, if any."""
        return self.extractor.post_processor

    @property
    def blend(self) -> float:
        """Share of the refined descriptors in the similarity; 0 without a post-processor."""
        return self.extractor.blend

    @property
    def identity(self) -> str:
        """Of the features that are matched: extractor, and post-processor and blend if there is one."""
        return self.extractor.identity

    @property
    def map_bytes(self) -> int:
        """What the features of one image in one pose take in memory."""
        return 4 * self.extractor.layout.channels * self.extractor.layout.grid**2

    def together(self, wanted: int = 0) -> int:
        """How many images are encoded in one batch; if not given, one on a CPU and eight elsewhere."""
        return wanted or (1 if self.extractor.device.type == "cpu" else 8)

    def encode(
        self, image: ImageLike | Encoded, mask: np.ndarray | None = None, box: Box | None = None
    ) -> Encoded:
        """Read an image and extract its features; give the result to `match` as often as you like.

        Args:
            image: path, PIL image or array; an encoded image is returned as it is.
            mask: boolean (h, w), the object's pixels. Given for the source, pose alignment measures on the
                object only, as in the paper; given for the target too, on both, as in the released code.
            box: the object's, x1, y1, x2, y2 in pixels. That part of the image, with a margin, is encoded
                alone, and no object is looked for.

        Raises:
            InputError: the image cannot be read, the mask is of another size, or the box outside the image.
        """
        if isinstance(image, Encoded):
            return image
        upright = load_image(image)
        if mask is not None and mask.shape != (upright.height, upright.width):
            raise InputError(
                f"the mask has {mask.shape[1]}x{mask.shape[0]} pixels, its image "
                f"{upright.width}x{upright.height}"
            )
        canvas = self.canvas(upright)
        canvas = canvas if box is None else replace(canvas, box=cut_out(box, upright.size))
        (features,) = self.features([upright], [canvas])
        return Encoded(upright, {"identity": features}, mask)

    def canvas(self, image: Image.Image, known: bool = False) -> Canvas:
        """All of an image; if it is ``known`` to show the object alone, nothing is cut out of it."""
        whole = (0, 0, *image.size) if known else None
        return Canvas(*image.size, self.extractor.layout.size, box=whole)

    def features(
        self, images: Sequence[Image.Image], canvases: Sequence[Canvas] | None = None
    ) -> list[FeatureMap]:
        """What is matched, of each image; the raw maps that it was made of are let go.

        Args:
            images: as the extractor takes them.
            canvases: how each is laid on its canvas, all of it if not given. For ``zoom`` a box is looked for
                where the canvas has none, for ``upright`` a turn likewise.
        """
        read = [load_image(each) for each in images]
        laid = [self.canvas(each) for each in read] if canvases is None else canvases
        return [replace(each, levels=()) for each in self.extractor.framed(read, laid)]

    def posed(self, source: Encoded, poses: Sequence[Pose]) -> dict[Pose, FeatureMap]:
        """Features of an image in other poses; each shows the part that was encoded of the image as it is."""
        canvas = source.maps["identity"].canvas
        images = [pose_image(source.image, pose) for pose in poses]
        return dict(zip(poses, self.features(images, [canvas.posed(pose) for pose in poses]), strict=True))

    def holding(self, source: Encoded, pixels: Float[Tensor, "n 2"]) -> Encoded:
        """The source; encoded anew, whole, if one of these points lies outside the part that was encoded."""
        return source if source.maps["identity"].canvas.holds(pixels).all() else self._whole(source)

    def _whole(self, encoded: Encoded) -> Encoded:
        """An image with nothing cut out of it: as it came if that is so."""
        if encoded.maps["identity"].canvas.part == (0, 0, *encoded.size):
            return encoded
        (features,) = self.features([encoded.image], [self.canvas(encoded.image, known=True)])
        return Encoded(encoded.image, {"identity": features}, encoded.mask)

    def match(
        self,
        source: ImageLike | Encoded,
        target: ImageLike | Encoded,
        points: PointsLike,
        *,
        pose: str | None = None,
        flip_pairs: Sequence[tuple[int, int]] | None = None,
        visible: Sequence[bool] | None = None,
    ) -> MatchResult:
        """Find the counterparts of points of the source image in the target image.

        Args:
            source: the image that the points are on.
            target: the image to find them in.
            points: pixels (x, y) of the source image, shape (n, 2).
            pose: overrides the matcher's pose setting for this call.
            flip_pairs: indices into ``points`` of those that exchange in a mirror (left ear, right ear). With
                them pose alignment follows the paper; without, partners are found by the features.
            visible: which points are annotated (with ``flip_pairs``); all when not given.

        Raises:
            InputError: an image cannot be read, a point is not a number or lies outside the image.
        """
        # Encode what is not encoded yet, and choose the pose that brings the source nearest to the target.
        here, there = self.encode(source), self.encode(target)
        pixels = check_points(points, here.size)
        here = self.holding(here, pixels)
        setting = self.pose if pose is None else self._resolve(pose)
        aligned = self.align(here, there, setting)
        # The turned maps are kept with the source, which may be matched with other targets.
        here.maps.update(aligned.maps)
        mirrored = None
        if flip_pairs is not None:
            mirrored = mirror_points(pixels, here.size, flip_partners(len(pixels), flip_pairs), visible)
        return self.match_aligned(here, there, pixels, setting, aligned, mirrored)

    def match_aligned(
        self,
        source: Encoded,
        target: Encoded,
        pixels: Float[Tensor, "n 2"],
        setting: str,
        aligned: Alignment,
        mirrored: MirroredPoints | None = None,
    ) -> MatchResult:
        """Match points once the poses are compared, which needs doing only once for a pair (`align`)."""
        here, there = source.maps, target.maps["identity"]
        matches = match_posed(here, there, pixels, aligned.pose, self.settings, mirrored)
        matches = replace(matches, distances=aligned.distances)
        return MatchResult(source, target, pixels, matches, setting, self.settings, self.describe())

    def dense(
        self,
        source: ImageLike | Encoded,
        target: ImageLike | Encoded,
        *,
        size: int | None = 448,
        step: int = 4,
        pose: str | None = None,
    ) -> Field:
        """Find the counterpart of every pixel of the source image, or of its mask, in the target image.

        Args:
            source: the image of the pixels; with a mask (`encode`) only those of the object are looked for.
            target: the image to find them in.
            size: longer side of the field in pixels; as the image if ``None``.
            step: every so many pixels of the field are matched, as `match` does it; what lies between is read
                from these (`method.dense.read`). 1 matches each.
            pose: overrides the matcher's pose setting for this call.

        Raises:
            InputError: an image cannot be read, or a size or step is below 1.

        Example:
            >>> field = matcher.dense("cat1.jpg", "cat2.jpg")       # doctest: +SKIP
            >>> field.carry(field.target.image).save("warped.png")  # doctest: +SKIP
        """
        here, there = self.encode(source), self.encode(target)
        longer = max(here.size) if size is None else size
        if min(longer, step) < 1:
            raise InputError(f"size and step of a field must be at least 1, got {longer} and {step}")
        canvas = Canvas(*here.size, longer)
        across, down = (lattice(each, step) for each in canvas.inner)
        places = canvas.to_pixels(mesh(across, down).reshape(-1, 2) + torch.tensor(canvas.offset))
        queries = clamp_points(places, here.size)
        # What lies beside an object that was cut out is looked for in all of the target.
        inside = here.maps["identity"].canvas.holds(queries)
        found = self.match(here, there, queries[inside], pose=pose)
        if not inside.all():
            beside = self.match(self._whole(here), self._whole(there), queries[~inside], pose=pose)
            found = replace(found, queries=queries, matches=found.matches.among(beside.matches, inside))
        return between(found, canvas, (len(down), len(across)))

    def match_pairs(
        self, pairs: Iterable[tuple[ImageLike | Encoded, ImageLike | Encoded, PointsLike]], **options: Any
    ) -> Iterator[MatchResult]:
        """Match the points of each pair: source, target and points.

        An image that several pairs name by its path is encoded once, as long as 1 GB holds what is kept.

        Args:
            pairs: any number; they are taken one at a time.
            **options: those of `match`, the same for all pairs.

        Yields:
            results, in the order of the pairs.

        Raises:
            InputError: as `match`.
        """
        setting = self._resolve(options.get("pose") or self.pose)

        def size(image: Encoded) -> int:
            return self.map_bytes * len(CANDIDATES[setting]) + 3 * image.size[0] * image.size[1]

        kept: Recent[str, Encoded] = Recent(_KEPT, size, least=2)

        def encoded(image: ImageLike | Encoded) -> Encoded:
            if not isinstance(image, str | os.PathLike):
                return self.encode(image)
            key = os.fspath(image)
            if key not in kept:
                kept[key] = self.encode(image)
            return kept[key]

        for source, target, points in pairs:
            yield self.match(encoded(source), encoded(target), points, **options)

    def align(self, source: Encoded, target: Encoded, setting: str) -> Alignment:
        """The pose of the source that fits the target best (paper, section 4.1); nothing given is changed.

        IMD is used when the source has a mask, else the distance of the matcher's `PoseRule`. With a single
        candidate nothing is computed and the distances are empty.
        """
        candidates = CANDIDATES[setting]
        if len(candidates) == 1:
            return Alignment(candidates[0], {}, source.maps)
        # Features of the turned images, where they are not there yet.
        missing = [pose for pose in candidates if pose not in source.maps]
        maps = {**source.maps, **self.posed(source, missing)}
        distances = pose_distances(
            {pose: maps[pose] for pose in candidates},
            target.maps["identity"],
            _masks(source, maps, candidates),
            (_masks(target, target.maps, ("identity",)) or {}).get("identity"),
            self.pose_rule,
        )
        if not all(map(math.isfinite, distances.values())):
            raise NotFiniteError(
                "the features of the source or of the target are not finite; try another dtype"
            )
        return Alignment(best_pose(distances, self.pose_rule.margin), distances, maps)

    def how(self) -> dict[str, Any]:
        """How features are matched, as headers of files of results say it."""
        rule = asdict(self.pose_rule)
        return {"matching": asdict(self.settings), "pose": self.pose, "pose_rule": rule}

    def describe(self) -> dict[str, Any]:
        """Features, settings and versions, as written beside every result."""
        refined = {}
        inside = self.extractor.extractor if isinstance(self.extractor, FramedExtractor) else self.extractor
        if isinstance(inside, RefinedExtractor):
            refined = {"post_processor": inside.weights, "blend": inside.blend}
        return {
            "extractor": self.identity,
            **refined,
            "settings": asdict(self.settings),
            "pose_rule": asdict(self.pose_rule),
            "device": str(self.extractor.device),
            "dtype": str(self.extractor.dtype).removeprefix("torch."),
            "versions": {"geoaware": __version__, "torch": torch.__version__},
        }

    def _resolve(self, pose: str) -> str:
        setting = self.defaults.pose if pose == "auto" else pose
        if setting not in CANDIDATES:
            raise InputError(f"unknown pose setting {pose!r}; choose auto, {', '.join(CANDIDATES)}")
        return setting


def _masks(
    encoded: Encoded, maps: Mapping[Pose, FeatureMap], poses: Sequence[Pose]
) -> dict[Pose, Bool[Tensor, "s s"]] | None:
    """The object's mask on the canvas of each pose; ``None`` if the part that was encoded shows none."""
    if encoded.mask is None:
        return None
    masks = {pose: mask_on_canvas(encoded.mask, pose, maps[pose].canvas) for pose in poses}
    cut = any(maps[pose].canvas.box is not None for pose in poses)
    return None if cut and not all(each.any() for each in masks.values()) else masks


def _check_window(settings: MatchSettings, grid: int) -> None:
    """Refuse a window that could only fail later, in the middle of the work.

    Raises:
        InputError: the window is even and smaller than the map.
    """
    if settings.mode in ("window", "kernel") and settings.window % 2 == 0 and settings.window < grid:
        raise InputError(
            f"the window must be an odd number of cells, or the whole map of {grid}, got {settings.window}"
        )
