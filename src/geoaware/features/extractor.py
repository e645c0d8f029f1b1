"""The contract of every extractor: pictures in, feature maps out; what is needed travels along."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from geoaware.errors import InputError
from geoaware.geometry import Canvas
from geoaware.images import PictureLike, load_image
from geoaware.types import FeatureMap

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Layout:
    """What an extractor takes and gives.

    Attributes:
        size: side of the square canvas in pixels.
        grid: cells a side of the map.
        channels: length of a descriptor.
        mean: per RGB channel, of values in 0…1.
        std: per RGB channel, of values in 0…1.
    """

    size: int
    grid: int
    channels: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


class Extractor(nn.Module, ABC):
    """Turns pictures into feature maps; a subclass gives `forward` on normalised canvases.

    Attributes:
        name: as it stands in the table of `geoaware.features`.
        identity: name and every setting that changes the features; maps with different ones do not match.
        layout: canvas, grid, channels, mean and std.
    """

    def __init__(self, name: str, identity: str, layout: Layout) -> None:
        super().__init__()
        self.name = name
        self.identity = identity
        self.layout = layout
        self.register_buffer("mean", torch.tensor(layout.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(layout.std).view(3, 1, 1), persistent=False)

    mean: Tensor
    std: Tensor

    @abstractmethod
    def forward(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c p p"]:
        """Features of normalised canvases, in the module's own dtype."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and so of the computation; feature maps are float32 in any case."""
        return next(self.parameters()).dtype

    @overload
    def __call__(self, pictures: PictureLike) -> FeatureMap: ...
    @overload
    def __call__(self, pictures: list[Any]) -> list[FeatureMap]: ...
    def __call__(self, pictures: Any) -> Any:
        """Features of one picture, or of a list of pictures in one batch.

        Args:
            pictures: a path, PIL image or array, or a list of them; one in gives one out, a list gives a list
                (an empty list an empty list).

        Returns:
            Float32 maps on the extractor's device; points on them are pixels of the upright picture.

        Raises:
            InputError: a picture cannot be read.
        """
        if isinstance(pictures, (list, tuple)):
            return self._extract([load_image(each) for each in pictures])
        return self._extract([load_image(pictures)])[0]

    @torch.inference_mode()
    def _extract(self, images: Sequence[Image.Image]) -> list[FeatureMap]:
        if not images:
            return []
        canvases = [Canvas(*image.size, self.layout.size) for image in images]
        boards = [_as_tensor(canvas.render(image)) for canvas, image in zip(canvases, images, strict=True)]
        pixels = (torch.stack(boards).to(self.device) / 255 - self.mean.float()) / self.std.float()
        maps = self.forward(pixels.to(self.dtype)).float()
        return [FeatureMap(each, canvas, self.identity) for each, canvas in zip(maps, canvases, strict=True)]


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device named, or with ``"auto"`` the first present of CUDA, MPS and CPU.

    Raises:
        InputError: the device named is not there.
    """
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(
            f"the device {str(device)!r} is not available here; use --device cpu or auto"
        ) from None
    return chosen


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype named (``fp32``, ``bf16``, ``fp16``), if the device computes in it well.

    Raises:
        InputError: unknown name; half precision (fp16) on a CPU, which is slow and overflows; bf16 on a GPU
            that lacks it.
    """
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in DTYPES.values():
        raise InputError(f"unknown dtype {dtype!r}; choose {', '.join(DTYPES)}")
    if chosen == torch.float16 and device.type == "cpu":
        raise InputError("fp16 on a CPU is slow and overflows; use fp32 or bf16 there")
    if chosen == torch.bfloat16 and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("this GPU has no bf16; use fp16 or fp32")
    return chosen


def _as_tensor(board: Image.Image) -> Float[Tensor, "3 s s"]:
    return torch.from_numpy(np.array(board)).permute(2, 0, 1).float()
