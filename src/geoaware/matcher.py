"""The facade: images and points in, matches out. Encode an image once, query it often.

Example:
    >>> matcher = Matcher.from_pretrained("lite", device="cpu")        # doctest: +SKIP
    >>> result = matcher.match("cat1.jpg", "cat2.jpg", [(120, 85)])    # doctest: +SKIP
    >>> result.points, result.confidence, result.pose                  # doctest: +SKIP
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from geoaware._version import __version__
from geoaware.data.images import ImageLike, load_image
from geoaware.features import Extractor, check_name, load_extractor
from geoaware.features.refined import Refiner, load_post_processor, shipped
from geoaware.method.alignment import CANDIDATES, PoseRule, best_pose, match_posed, pose_distances
from geoaware.method.geometry import Canvas, PointsLike, Pose, as_points, pose_image
from geoaware.method.matching import MatchSettings, descriptors, similarity
from geoaware.method.post_processor import PostProcessor
from geoaware.method.types import FeatureMap, Matches
from geoaware.runs.errors import InputError


@dataclass(frozen=True)
class Defaults:
    """How images are matched with the features of one extractor, as measured in docs/extractors.md.

    Attributes:
        match: how similarity becomes position.
        pose: a key of `alignment.CANDIDATES`.
        pose_rule: how the pose is chosen.
        blend: share of a post-processor's descriptors in the similarity, where there is one.
    """

    match: MatchSettings
    pose: str = "off"
    pose_rule: PoseRule = field(default_factory=PoseRule)
    blend: float = 1.0


_PAPER = MatchSettings(window=11, inside_picture=True)

DEFAULTS: dict[str, Defaults] = {
    "efficientnet-lite0": Defaults(
        MatchSettings(window=9, temperature=0.03, inside_picture=True, interpolate=True),
        pose="flip",
        pose_rule=PoseRule("imd", margin=0.01),
    ),
    "efficientnet-lite0-tuned": Defaults(
        MatchSettings(window=11, temperature=0.03, inside_picture=True, interpolate=True),
        pose="flip",
        pose_rule=PoseRule("imd", margin=0.01),
    ),
}
"""Per extractor; those not named get the paper's zero-shot window (11) and pose alignment (flip)."""

PRESETS: dict[str, str] = {"lite": "efficientnet-lite0", "lite-tuned": "efficientnet-lite0-tuned"}
"""Names that `Matcher.from_pretrained` takes beside those of the extractors.

Each is an extractor with the post-processor that is shipped under the same name, if there is one.
"""


def defaults_of(extractor_name: str, post_processor: PostProcessor | None = None) -> Defaults:
    """How features are best matched: the one place where this is decided.

    Args:
        extractor_name: plain, its measured defaults, or else the paper's zero-shot settings.
        post_processor: with one, the paper's supervised settings without pose alignment, looking where and
            reading as the extractor does; changed by what was measured for the weights, ``info["matching"]``:
            settings of `MatchSettings`, ``pose``, ``pose_rule`` (``"imd:0.01"``) and ``blend``.

    Raises:
        InputError: ``info["matching"]`` has an unknown key or an impossible value.
    """
    plain = DEFAULTS.get(extractor_name, Defaults(_PAPER, pose="flip"))
    if post_processor is None:
        return plain
    match = MatchSettings(inside_picture=plain.match.inside_picture, interpolate=plain.match.interpolate)
    measured = post_processor.info.get("matching", {})
    try:
        return _changed(Defaults(match, pose="off", pose_rule=plain.pose_rule), measured)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"info.matching in the post-processor's config: {error}") from None


def choose_post_processor(
    name: str, place: str | os.PathLike[str] | PostProcessor | None = "auto"
) -> PostProcessor | None:
    """The post-processor that goes with a name.

    Args:
        name: as for `Matcher.from_pretrained`.
        place: ``"auto"``: the one shipped under the name of a preset, none for the name of an extractor.
            ``"none"`` or ``None``: none. Anything else: see `blending.load_post_processor`.

    Raises:
        InputError: nothing is at the place, or it is no post-processor.
    """
    if place is None or isinstance(place, PostProcessor):
        return place
    if place == "none":
        return None
    if place != "auto":
        return load_post_processor(place)
    folder = shipped().get(name) if name in PRESETS else None
    return None if folder is None else load_post_processor(folder)


@dataclass
class Encoded:
    """An image with its features, by pose, computed when first needed and kept.

    Attributes:
        image: upright RGB image; its pixels are those of all points.
        maps: features by pose.
        mask: the object in pixels of the image, boolean (h, w), if one was given.
    """

    image: Image.Image
    maps: dict[Pose, FeatureMap] = field(default_factory=dict)
    mask: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.size


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

    Attributes:
        refiner: the post-processor at work; ``None`` without one.
        defaults: what stands for all that was not given, as measured.

    Raises:
        InputError: unknown pose, a blend out of range or without a post-processor, or a post-processor that
            was trained on other features.
    """

    def __init__(
        self,
        extractor: Extractor,
        settings: MatchSettings | None = None,
        pose: str = "auto",
        pose_rule: PoseRule | None = None,
        post_processor: PostProcessor | None = None,
        blend: float | None = None,
    ) -> None:
        if post_processor is None and blend:
            raise InputError(f"a blend of {blend} needs a post-processor; give one (--post-processor PLACE)")
        if blend == 0:
            post_processor = None
        self.defaults = defaults_of(extractor.name, post_processor)
        self.extractor = extractor
        self.refiner: Refiner | None = None
        if post_processor is not None:
            share = self.defaults.blend if blend is None else blend
            self.refiner = Refiner(post_processor, extractor, share)
        self.settings = settings or self.defaults.match
        self.pose_rule = pose_rule or self.defaults.pose_rule
        self.pose = self._resolve(pose)

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
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "fp32",
        **extractor_settings: Any,
    ) -> Matcher:
        """A matcher by one name: ``"lite"``, ``"lite-tuned"`` or the name of any extractor.

        Args:
            name: ``"lite"`` brings the post-processor that is shipped with the package, if there is one; the
                name of an extractor gives its features as they are.
            pose: see `Matcher`.
            pose_rule: see `Matcher`.
            settings: see `Matcher`.
            post_processor: ``"auto"``, as the name has it; ``"none"``; or one to use: a saved folder, a
                released checkpoint (``.PTH``), the name of a shipped one, a hub id, or the network itself.
            blend: see `Matcher`.
            device: of extractor and post-processor.
            dtype: that the extractor computes in; the post-processor computes in float32.
            **extractor_settings: see `load_extractor`.

        Raises:
            InputError: unknown name or setting, missing weights, a post-processor for another extractor; the
                message says what to do.
        """
        extractor_name = PRESETS.get(name, name)
        check_name(extractor_name)
        network = choose_post_processor(name, post_processor)
        extractor = load_extractor(extractor_name, device=device, dtype=dtype, **extractor_settings)
        return cls(extractor, settings, pose, pose_rule, network, blend)

    @property
    def post_processor(self) -> PostProcessor | None:
        """The network that refines the features, if any."""
        return None if self.refiner is None else self.refiner.network

    @property
    def blend(self) -> float:
        """Share of the refined descriptors in the similarity; 0 without a post-processor."""
        return 0.0 if self.refiner is None else self.refiner.blend

    @property
    def identity(self) -> str:
        """Of the features that are matched: extractor, and post-processor and blend if there is one."""
        return self.extractor.identity if self.refiner is None else self.refiner.identity

    @property
    def map_bytes(self) -> int:
        """What the features of one image in one pose take in memory."""
        layout = self.extractor.layout
        channels, grid = (layout.channels, layout.grid) if self.refiner is None else self.refiner.shape
        return 4 * channels * grid**2

    def encode(self, image: ImageLike | Encoded, mask: np.ndarray | None = None) -> Encoded:
        """Read an image and extract its features; give the result to `match` as often as you like.

        Args:
            image: path, PIL image or array; an encoded image is returned as it is.
            mask: boolean (h, w), the object's pixels. Given for the source, pose alignment measures on the
                object only, as in the paper; given for the target too, on both, as in the released code.

        Raises:
            InputError: the image cannot be read, or the mask is of another size.
        """
        if isinstance(image, Encoded):
            return image
        upright = load_image(image)
        if mask is not None and mask.shape != (upright.height, upright.width):
            raise InputError(
                f"the mask has {mask.shape[1]}x{mask.shape[0]} pixels, its image "
                f"{upright.width}x{upright.height}"
            )
        return Encoded(upright, {"identity": self.features([upright])[0]}, mask)

    def features(self, images: Sequence[Image.Image]) -> list[FeatureMap]:
        """What is matched, of each image; the raw maps that it was made of are let go."""
        plain = self.extractor(list(images))
        if self.refiner is None:
            return [replace(each, levels=()) for each in plain]
        return [self.refiner(each) for each in plain]

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
        here, there = self.encode(source), self.encode(target)
        pixels = check_points(points, here.size)
        setting = self.pose if pose is None else self._resolve(pose)
        chosen, distances = self.align(here, there, setting)
        matches = match_posed(
            here.maps,
            there.maps["identity"],
            pixels,
            chosen,
            self.settings,
            flip_pairs,
            None if visible is None else torch.as_tensor(list(visible), dtype=torch.bool),
        )
        return MatchResult(here, there, pixels, replace(matches, distances=distances), setting, self)

    def align(self, source: Encoded, target: Encoded, setting: str) -> tuple[Pose, dict[Pose, float]]:
        """The pose of the source that fits the target best, and every candidate's distance to it.

        IMD is used when the source has a mask, else the distance of the matcher's `PoseRule`. With a single
        candidate nothing is computed and the distances are empty.
        """
        candidates = CANDIDATES[setting]
        if len(candidates) == 1:
            return candidates[0], {}
        missing = [pose for pose in candidates if pose not in source.maps]
        turned = self.features([pose_image(source.image, pose) for pose in missing])
        source.maps.update(zip(missing, turned, strict=True))
        masks = None
        if source.mask is not None:
            masks = {
                pose: mask_on_canvas(source.mask, pose, self.extractor.layout.size) for pose in candidates
            }
        restricted = None
        if target.mask is not None:
            restricted = mask_on_canvas(target.mask, "identity", self.extractor.layout.size)
        distances = pose_distances(
            {pose: source.maps[pose] for pose in candidates},
            target.maps["identity"],
            masks,
            restricted,
            self.pose_rule,
        )
        return best_pose(distances, self.pose_rule.margin), distances

    def describe(self) -> dict[str, Any]:
        """Features, settings and versions, as written beside every result."""
        refined = {}
        if self.refiner is not None:
            refined = {"post_processor": self.refiner.weights, "blend": self.refiner.blend}
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


@dataclass(frozen=True)
class MatchResult:
    """What `Matcher.match` found, with the images it was found in.

    Attributes:
        source: the encoded image of the points.
        target: the encoded image of the matches.
        queries: the points asked for, pixels of the source image.
        matches: positions, confidences, cycle errors, pose and distances.
        pose_setting: which poses were tried: a key of `alignment.CANDIDATES`.
        matcher: what made it.
    """

    source: Encoded
    target: Encoded
    queries: Float[Tensor, "n 2"]
    matches: Matches
    pose_setting: str
    matcher: Matcher

    @property
    def points(self) -> Float[Tensor, "n 2"]:
        """Pixels (x, y) of the target image."""
        return self.matches.points

    @property
    def confidence(self) -> Float[Tensor, " n"]:
        """0 to 1; see `Matches`."""
        return self.matches.confidence

    @property
    def cycle_error(self) -> Float[Tensor, " n"]:
        """In units of the source image's longer side; see `Matches`."""
        return self.matches.cycle_error

    @property
    def pose(self) -> Pose:
        """How the source was turned."""
        return self.matches.pose

    @property
    def distances(self) -> Mapping[Pose, float]:
        """Of each candidate pose."""
        return self.matches.distances

    def draw(self, **style: Any) -> Image.Image:
        """Both images side by side with numbered points; see `drawing.draw_matches` for the style."""
        from geoaware.drawing import draw_matches

        style = {"confidence": self.confidence, **style}
        return draw_matches(self.source.image, self.target.image, self.queries, self.points, **style)

    def similarity_map(self, index: int) -> Float[Tensor, "p p"]:
        """Cosine similarity of one query with every cell of the target's canvas.

        Raises:
            InputError: there is no such query.
        """
        if not 0 <= index < len(self.queries):
            raise InputError(f"there is no query {index}: the points are numbered 0…{len(self.queries) - 1}")
        read_from = self.source.maps[self.pose if self.matches.turned[index] else "identity"]
        query = descriptors(
            read_from, self.matches.read_at[index : index + 1], self.matcher.settings.interpolate
        )
        return similarity(query.float(), self.target.maps["identity"].data)[0]

    def heatmap(self, index: int) -> Image.Image:
        """The target image under the similarity map of one query."""
        from geoaware.drawing import draw_heatmap

        return draw_heatmap(
            self.target.image,
            self.similarity_map(index),
            self.target.maps["identity"].canvas,
            point=self.points[index],
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the images, in plain Python values."""
        matches = [
            {
                "query": _rounded(query),
                "match": _rounded(point),
                "confidence": round(float(confidence), 4),
                "cycle_error": round(float(cycle), 4),
            }
            for query, point, confidence, cycle in zip(
                self.queries, self.points, self.confidence, self.cycle_error, strict=True
            )
        ]
        return {
            "source_size": list(self.source.size),
            "target_size": list(self.target.size),
            "pose_setting": self.pose_setting,
            "pose": self.pose,
            "distances": {pose: round(value, 5) for pose, value in self.distances.items()},
            "matches": matches,
            **self.matcher.describe(),
        }

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=indent)


def check_points(points: PointsLike, size: tuple[int, int]) -> Float[Tensor, "n 2"]:
    """Points of an image as float64 of shape (n, 2), after making sure that they lie in it.

    Raises:
        InputError: wrong shape, NaN or infinity, or outside 0…w-1, 0…h-1; the message names the point.
    """
    try:
        pixels = as_points(points).double()
    except (TypeError, ValueError) as error:
        raise InputError(f"points cannot be used: {error}") from None
    if pixels.ndim != 2:
        raise InputError(f"points must be a list of (x, y), got shape {tuple(pixels.shape)}")
    for number, (x, y) in enumerate(pixels.tolist()):
        if not (math.isfinite(x) and math.isfinite(y)):
            raise InputError(f"point {number} is ({x}, {y}); coordinates must be finite numbers")
        if not (0 <= x < size[0] and 0 <= y < size[1]):
            raise InputError(
                f"point {number} ({x:g}, {y:g}) lies outside the image of {size[0]}x{size[1]} pixels "
                f"(x from 0 to {size[0] - 1}, y from 0 to {size[1] - 1})"
            )
    return pixels


def _changed(defaults: Defaults, measured: Mapping[str, Any]) -> Defaults:
    """Defaults with single values changed, given by the names of `MatchSettings`, pose, pose_rule, blend.

    Raises:
        TypeError, AttributeError: a value is of the wrong kind.
        ValueError: an unknown name, or a value that cannot be.
    """
    of_match = [each.name for each in fields(MatchSettings)]
    known = [*of_match, "pose", "pose_rule", "blend"]
    unknown = sorted(set(measured) - set(known))
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; there are {', '.join(known)}")
    pose, rule = measured.get("pose", defaults.pose), measured.get("pose_rule")
    if pose not in CANDIDATES:
        raise ValueError(f"unknown pose {pose!r}; there are {', '.join(CANDIDATES)}")
    return Defaults(
        replace(defaults.match, **{key: measured[key] for key in of_match if key in measured}),
        pose,
        defaults.pose_rule if rule is None else PoseRule.parse(rule),
        float(measured.get("blend", defaults.blend)),
    )


def mask_on_canvas(mask: np.ndarray, pose: Pose, size: int) -> Bool[Tensor, "s s"]:
    """A mask (h, w) of the upright image, turned and laid on a canvas of ``size`` as its image is."""
    image = pose_image(Image.fromarray(mask), pose)
    canvas = Canvas(*image.size, size)
    board = Image.new("L", (size, size))
    board.paste(image.convert("L").resize(canvas.inner, Image.Resampling.NEAREST), canvas.offset)
    return torch.from_numpy(np.array(board)) > 0


def _rounded(point: Tensor) -> list[float]:
    return [round(float(value), 2) for value in point]
