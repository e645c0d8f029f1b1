"""The contract of every extractor: images in, feature maps out; what is needed travels along."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar, overload

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from geoaware.data.images import ImageLike, load_image
from geoaware.method.geometry import Canvas
from geoaware.method.maps import resized
from geoaware.method.post_processor import PostProcessor
from geoaware.method.types import FeatureMap
from geoaware.runs.errors import InputError
from geoaware.runs.weights import digest

T = TypeVar("T")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Layout:
    """What an extractor takes and gives.

    Attributes:
        size: side of the square canvas in pixels.
        grid: cells a side of the map.
        channels: length of a descriptor.
        mean, std: per RGB channel, of values in 0…1.
    """

    size: int
    grid: int
    channels: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def make_settings(kind: type[T], name: str, given: dict[str, Any]) -> T:
    """A settings dataclass of keyword arguments, each of the type of its field.

    Raises:
        InputError: a key that it lacks (the message lists those it has), or a value that cannot be.
    """
    from geoaware.runs.settings import (
        checked,  # not before there is something to check: pydantic takes a while
    )

    return kind(**checked(kind, given, name))


def describe(name: str, settings: Any, *without: str) -> str:
    """Name and settings as one string, the identity of the features: ``name(canvas=320, ...)``.

    Settings that are not given are left out, and so are those named in ``without``, which change nothing.
    """
    told = {key: value for key, value in asdict(settings).items() if value is not None and key not in without}
    return f"{name}({', '.join(f'{key}={value}' for key, value in told.items())})"


@dataclass(frozen=True)
class Provenance:
    """How features were computed, as headers of files of results say it."""

    settings: dict[str, Any]
    """Device, dtype, how they were stored and, for refined features, the blend."""
    hashes: dict[str, str]
    """SHA-256 of the weights, and of the post-processor's where there is one."""


class Extractor(nn.Module, ABC):
    """Turns images into feature maps; a subclass gives `levels` and, where it has several, `combine`.

    Attributes:
        name: as it stands in the table of `geoaware.features`.
        identity: name and every setting that changes the features; maps with different ones do not match.
        layout: canvas, grid, channels, mean and std.
        stored: how features were rounded on disk before use (``fp16``, ``int8``); ``None`` if they were not.
        blend: share of a post-processor's descriptors in the similarity; 0 without one.
        sees: of ``"zoom"`` (`presence`, `small_object`, `shows_object`) and ``"upright"`` (`standing`).
    """

    mean: Tensor
    std: Tensor
    stored: str | None = None
    blend: float = 0.0
    sees: tuple[str, ...] = ()

    def __init__(self, name: str, identity: str, layout: Layout) -> None:
        super().__init__()
        self.name = name
        self.identity = identity
        self.layout = layout
        self.register_buffer("mean", torch.tensor(layout.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(layout.std).view(3, 1, 1), persistent=False)

    @abstractmethod
    def levels(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """Raw maps (b, c_i, h_i, w_i) of normalised canvases, each at its own size, before `combine`."""

    def combine(self, levels: Sequence[Tensor], grid: int | None = None) -> Float[Tensor, "b c p p"]:
        """Descriptors from the raw maps, on a grid of so many cells a side, the layout's if not given."""
        (only,) = levels
        return resized(only, grid or self.layout.grid)

    def forward(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c p p"]:
        """Descriptors of normalised canvases, in the module's own dtype."""
        return self.combine(self.levels(pixels))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and so of the computation; feature maps are float32 in any case."""
        return next(self.parameters()).dtype

    @property
    def post_processor(self) -> PostProcessor | None:
        """What refines the features; ``None`` unless this is a `RefinedExtractor`."""
        return None

    def limit_memory(self, size: int) -> None:
        """Keep the computation within ``size`` bytes where the network can; features stay the same."""

    def weights_hash(self) -> str:
        """SHA-256 of the weights, by name, in the dtype that they compute in; the whole of them is read."""
        return digest(self.state_dict().items()).hex()

    def provenance(self) -> Provenance:
        """How the features are computed, for the header of a file of results."""
        dtype = str(self.dtype).removeprefix("torch.")
        settings = {"device": self.device.type, "dtype": dtype, "stored": self.stored}
        return Provenance(settings, {"weights": self.weights_hash()})

    @overload
    def __call__(self, images: ImageLike) -> FeatureMap: ...
    @overload
    def __call__(self, images: list[Any]) -> list[FeatureMap]: ...
    def __call__(self, images: Any) -> Any:
        """Features of one image (a path, PIL image or array), or of a list of images in one batch.

        One in gives one out, a list gives a list. The maps are float32 on the extractor's device; points on
        them are pixels of the upright image.

        Raises:
            InputError: an image cannot be read.
        """
        if not isinstance(images, (list, tuple)):
            return self([images])[0]
        read = [load_image(each) for each in images]
        return self.framed(read, [Canvas(*each.size, self.layout.size) for each in read])

    def presence(self, levels: Sequence[Float[Tensor, "_ _ _"]]) -> Float[Tensor, "g g"]:
        """The logit that a cell shows an object, from the raw maps of an image; of extractors that see it."""
        raise NotImplementedError(f"{self.name} does not see where an object is")

    def small_object(
        self, levels: Sequence[Float[Tensor, "_ _ _"]], canvas: Canvas
    ) -> tuple[int, int, int, int] | None:
        """The box to cut out, in whole pixels of the image, from the raw maps of an image on its canvas.

        ``None`` where there is no object, or it is not small.
        """
        raise NotImplementedError(f"{self.name} does not see where an object is")

    def shows_object(self, levels: Sequence[Float[Tensor, "_ _ _"]]) -> bool:
        """Whether what was cut out of an image shows an object, from its raw maps."""
        raise NotImplementedError(f"{self.name} does not see where an object is")

    def standing(self, levels: Sequence[Float[Tensor, "_ _ _"]]) -> Float[Tensor, " 4"]:
        """Logits of the turns `UPRIGHT`: which of them makes a view stand upright, from its raw maps."""
        raise NotImplementedError(f"{self.name} does not see how an image stands")

    def framed(self, images: Sequence[Image.Image], canvases: Sequence[Canvas]) -> list[FeatureMap]:
        """Feature maps of upright RGB images, each laid on its canvas, in one batch.

        A `FramedExtractor` looks first: for the turn where the canvas has none, and for the box likewise.
        """
        levels = self.levels_on(images, canvases)
        return [self.feature_map_on(canvas, each) for canvas, each in zip(canvases, levels, strict=True)]

    def levels_on(self, images: Sequence[Image.Image], canvases: Sequence[Canvas]) -> list[list[Tensor]]:
        """Raw maps (c_i, h_i, w_i) of each image as it lies on its canvas, computed in one batch."""
        views = [canvas.view(image) for canvas, image in zip(canvases, images, strict=True)]
        levels = self.levels_of(views) if views else ()
        return [[level[row] for level in levels] for row in range(len(views))]

    def feature_map_on(self, canvas: Canvas, levels: Sequence[Float[Tensor, "_ _ _"]]) -> FeatureMap:
        """The feature map of an image that is laid on a canvas, from the raw maps of what it shows."""
        return replace(self.feature_map(levels, canvas.shown), canvas=canvas)

    @torch.inference_mode()
    def levels_of(self, images: Sequence[Image.Image]) -> tuple[Tensor, ...]:
        """Raw maps (b, c_i, h_i, w_i) of upright RGB images, float32, each laid on its own canvas."""
        boards = [np.array(Canvas(*image.size, self.layout.size).render(image)) for image in images]
        values = torch.stack([torch.from_numpy(each).permute(2, 0, 1).float() for each in boards])
        pixels = (values.to(self.device) / 255 - self.mean.float()) / self.std.float()
        return tuple(level.float() for level in self.levels(pixels.to(self.dtype)))

    @torch.inference_mode()
    def feature_map(self, levels: Sequence[Float[Tensor, "_ _ _"]], size: tuple[int, int]) -> FeatureMap:
        """The feature map of an upright image of this width and height from its raw maps, fresh or read."""
        raw = tuple(level.to(self.device).float() for level in levels)
        data = self.combine([level[None] for level in raw]).contiguous(memory_format=torch.channels_last)[0]
        return FeatureMap(data, Canvas(*size, self.layout.size), self.identity, raw)


class Wrapped(Extractor):
    """An extractor around another one, to which it leaves what a subclass does not do itself."""

    def __init__(
        self, extractor: Extractor, identity: str | None = None, layout: Layout | None = None
    ) -> None:
        if type(extractor).framed is not Extractor.framed:
            raise InputError(f"what turns and cuts images goes around {extractor.name} last; wrap that first")
        super().__init__(extractor.name, identity or extractor.identity, layout or extractor.layout)
        self.extractor = extractor
        self.stored = extractor.stored
        self.sees = extractor.sees

    def presence(self, levels: Sequence[Float[Tensor, "_ _ _"]]) -> Float[Tensor, "g g"]:
        """As the extractor inside does."""
        return self.extractor.presence(levels)

    def small_object(
        self, levels: Sequence[Float[Tensor, "_ _ _"]], canvas: Canvas
    ) -> tuple[int, int, int, int] | None:
        """As the extractor inside does."""
        return self.extractor.small_object(levels, canvas)

    def shows_object(self, levels: Sequence[Float[Tensor, "_ _ _"]]) -> bool:
        """As the extractor inside does."""
        return self.extractor.shows_object(levels)

    def standing(self, levels: Sequence[Float[Tensor, "_ _ _"]]) -> Float[Tensor, " 4"]:
        """As the extractor inside does."""
        return self.extractor.standing(levels)

    def limit_memory(self, size: int) -> None:
        """Of the extractor inside."""
        self.extractor.limit_memory(size)

    def weights_hash(self) -> str:
        """Of the extractor inside."""
        return self.extractor.weights_hash()

    def levels(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """Of the extractor inside, which computes them: canvases say nothing of the image's size."""
        return self.extractor.levels(pixels)

    def levels_of(self, images: Sequence[Image.Image]) -> tuple[Tensor, ...]:
        """Of the extractor inside, which may read them from disk."""
        return self.extractor.levels_of(images)

    def combine(self, levels: Sequence[Tensor], grid: int | None = None) -> Float[Tensor, "b c p p"]:
        """As the extractor inside does."""
        return self.extractor.combine(levels, grid)


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device named, or with ``"auto"`` the first present of CUDA, MPS and CPU; `InputError` if absent."""
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # `meta` computes no values
    except (RuntimeError, AssertionError, NotImplementedError):
        message = f"the device {str(device)!r} is not available here; use cpu or auto"
        raise InputError(message, "device") from None
    return chosen


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype named, if the device computes in it well.

    Raises:
        InputError: unknown name, fp16 on a CPU, or bf16 on a GPU that lacks it.
    """
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in DTYPES.values():
        raise InputError(f"unknown dtype {dtype!r}; choose {', '.join(DTYPES)}")
    if chosen == torch.float16 and device.type == "cpu":
        raise InputError("fp16 on a CPU is slow and overflows; use fp32 or bf16 there")
    if chosen == torch.bfloat16 and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("this GPU has no bf16; use fp16 or fp32")
    return chosen
