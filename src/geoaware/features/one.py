"""One network for objects that were trained on and for all others, in one pass over one canvas.

A `OneNetwork` is the tuned network with a second, cheap way out: plain descriptors, a linear reading of the
backbone's maps that is trained to relate cells to one another as the plain extractor does (distillation). At
every cell the network's own presence says how much each counts, so that an object that was not trained on is
matched by plain descriptors without a second pass, thresholds or stored centres.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geoaware.features.efficientnet_lite import MEAN, STD, imagenet_network
from geoaware.features.extractor import Extractor, Layout
from geoaware.features.settings import describe, make_settings
from geoaware.features.tuned import SHIPPED, TunedNetwork, TunedShape, _enlarged
from geoaware.runs.errors import InputError
from geoaware.runs.weights import CONFIG, WEIGHTS, read_safetensors, write_pretrained

FORMAT = "geoaware one network 1"

READ = {7: 80, 10: 112, 13: 192, 15: 320}
"""Blocks that the plain descriptors are read from, with their channels."""

SHARE = 0.75
"""Of the similarity, at most so much is by trained descriptors."""


class OneNetwork(TunedNetwork):
    """Pixels to unit descriptors and presence, at stride 8.

    Args:
        shape: of the decoder; ``shape.plain`` is the number of channels of the plain descriptors.
        backbone: an EfficientNet-Lite0 of ``efficientnet_lite_pytorch``, with its batch normalisations.

    Attributes:
        fixed: the last block that training leaves as it is (2 or -1, none); set while training alone.
    """

    def __init__(self, shape: TunedShape, backbone: Any) -> None:
        super().__init__(shape, backbone)
        del self.centres, self.plain_centres
        self.reading = nn.ModuleDict(
            {str(index): nn.Conv2d(channels, shape.plain, 1, bias=False) for index, channels in READ.items()}
        )
        self.correction = nn.Conv2d(shape.width, shape.plain, 1)
        nn.init.zeros_(self.correction.weight)
        nn.init.constant_(self.correction.bias, 0.0)  # type: ignore[arg-type]
        self.gate = nn.Parameter(torch.tensor([1.0, 0.0]))
        self.fixed = -1
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, pixels: Float[Tensor, "b 3 s s"], early: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Float[Tensor, "b d g g"], Float[Tensor, "b 1 g g"]]:
        """Unit descriptors, and the logit of being on an object of a kind that was trained on."""
        trained, plain, presence = self.parts(pixels, early)
        return self.joined(trained, plain, presence), presence

    def parts(
        self, pixels: Float[Tensor, "b 3 s s"], early: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Float[Tensor, "b d g g"], Float[Tensor, "b c g g"], Float[Tensor, "b 1 g g"]]:
        """Trained and plain unit descriptors, and the logit of presence."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        (fine, eighth, sixteenth, last), levels = self._levels(pixels, early or (lambda maps: maps))
        x = F.relu(sixteenth + _enlarged(last))
        for block in self.context:
            x = block(x)
        x = F.relu(_enlarged(x) + eighth + F.avg_pool2d(fine, 2))
        for block in self.detail:
            x = block(x)
        found = self.out(x).float()
        plain = self._plain(levels, x)
        return F.normalize(found[:, :-1], dim=1), plain, found[:, -1:]

    def joined(
        self,
        trained: Float[Tensor, "b d g g"],
        plain: Float[Tensor, "b c g g"],
        presence: Float[Tensor, "b 1 g g"],
    ) -> Float[Tensor, "b e g g"]:
        """One unit descriptor of both; their cosine similarity mixes those of the two by presence."""
        share = SHARE * torch.sigmoid(self.gate[0] * presence + self.gate[1])
        return torch.cat([share.clamp(min=1e-6).sqrt() * trained, (1 - share).sqrt() * plain], dim=1)

    def _levels(
        self, pixels: Tensor, early: Callable[[Tensor], Tensor]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The decoder's inputs, and the centred maps that the plain descriptors are read from."""
        taken, levels = [], {}
        x = self._fixed(pixels) if self.fixed >= 0 else early(self.stem(pixels))
        for index, block in enumerate(self.blocks):
            if index > self.fixed:
                x = block(x)
            elif index < self.fixed or str(index) not in self.lateral:
                continue
            if index == min(int(each) for each in self.lateral):
                x = early(x)
            if str(index) in self.lateral:
                taken.append(self.lateral[str(index)](x))
            if index in READ:
                levels[str(index)] = centred(x.float())
        return taken, levels

    @torch.no_grad()
    def _fixed(self, pixels: Tensor) -> Tensor:
        """The output of the last block that training leaves as it is, computed in bfloat16."""
        with torch.autocast(pixels.device.type, torch.bfloat16):
            x = self.stem(pixels)
            for block in self.blocks[: self.fixed + 1]:
                x = block(x)
        return x.float()

    def _plain(self, levels: dict[str, Tensor], decoded: Tensor) -> Float[Tensor, "b c g g"]:
        side = decoded.shape[-2:]
        # A 1 x 1 convolution commutes with the interpolation: it is cheaper first.
        read = {index: self.reading[index](level) for index, level in levels.items()}
        fine = read["7"] + read["10"]
        coarse = read["13"] + read["15"]
        fine = fine + F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear")
        plain = F.interpolate(fine, size=side, mode="bilinear") + self.correction(decoded)
        return F.normalize(plain.float(), dim=1)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``model.safetensors`` (convolutions in half precision), ``config.json`` and ``README.md``.

        Raises:
            InputError: the folder cannot be written to.
        """
        state = {
            name: value.half() if value.ndim == 4 else value
            for name, value in self.state_dict().items()
            if value.is_floating_point()
        }
        config = {"format": FORMAT, "shape": asdict(self.shape), "info": self.info}
        return write_pretrained(folder, state, config, self.card())

    @classmethod
    def from_pretrained(cls, place: str | os.PathLike[str]) -> OneNetwork:
        """Weights of a folder that `save_pretrained` wrote, or that come with the package.

        Raises:
            InputError: nothing is there, or it is damaged or of another format.
        """
        folder = Path(place)
        if not folder.is_dir() and (SHIPPED / str(place) / CONFIG).is_file():
            folder = SHIPPED / str(place)
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{folder / CONFIG}: cannot be read ({error}); copy the folder anew") from None
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise InputError(f"{folder / CONFIG}: is not the config of a {FORMAT}")
        shape: dict[str, Any] = {
            name: tuple(each) if isinstance(each, list) else each for name, each in config["shape"].items()
        }
        network = cls(TunedShape(**shape), imagenet_network(weights=False))
        state = {name: value.float() for name, value in read_safetensors(folder / WEIGHTS).items()}
        missing, unknown = network.load_state_dict(state, strict=False)
        wrong = [name for name in (*missing, *unknown) if not name.endswith("num_batches_tracked")]
        if wrong:
            raise InputError(f"{folder / WEIGHTS}: {wrong[0]} is missing or unknown; copy the folder anew")
        network.info = config["info"]
        return network.eval()

    @classmethod
    def from_tuned(cls, tuned: TunedNetwork, plain: int) -> OneNetwork:
        """A tuned network with a plain way out that has yet to be fitted (`fit_reading`)."""
        shape = TunedShape(**{**asdict(tuned.shape), "keypoints": (), "plain": plain})
        network = cls(shape, imagenet_network(weights=False))
        state = {name: value for name, value in tuned.state_dict().items() if "centres" not in name}
        network.load_state_dict(state, strict=False)
        return network


def centred(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Unit descriptors freed of their mean over the image, as the plain extractor makes them."""
    unit = F.normalize(maps, dim=1)
    return F.normalize(unit - unit.mean(dim=(2, 3), keepdim=True), dim=1)


@dataclass(frozen=True)
class OneSettings:
    """Settings of `One`.

    Attributes:
        weights: name of weights that come with the package, or a folder.
        canvas: side of the square image, a multiple of 32.
        grid: cells a side of the map; an eighth of the canvas when not given.
    """

    weights: str = "lite"
    canvas: int = 448
    grid: int | None = None

    def __post_init__(self) -> None:
        if self.canvas < 32 or self.canvas % 32:
            raise InputError(f"the canvas must be a multiple of 32 pixels, got {self.canvas}")


class One(Extractor):
    """The network as an extractor."""

    def __init__(self, name: str, settings: OneSettings, network: OneNetwork) -> None:
        channels = network.shape.descriptor + network.shape.plain
        identity = f"{describe(name, settings)} {network.weights_hash()[:16]}"
        grid = settings.grid or settings.canvas // 8
        super().__init__(name, identity, Layout(settings.canvas, grid, channels, MEAN, STD))
        self.settings = settings
        self.network = network.folded()

    @classmethod
    def load(cls, name: str, **settings: Any) -> One:
        """Load by table name; see `OneSettings` for the settings."""
        chosen = make_settings(OneSettings, name, settings)
        return cls(name, chosen, OneNetwork.from_pretrained(chosen.weights))

    def levels(self, pixels: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        """The descriptors."""
        return (self.network(pixels)[0],)

    def combine(self, levels: Sequence[Tensor]) -> Float[Tensor, "b c p p"]:
        """Unit descriptors."""
        return self.combine_on(levels, self.layout.grid)

    def combine_on(self, levels: Sequence[Tensor], grid: int) -> Float[Tensor, "b c q q"]:
        """Likewise on a grid of another number of cells."""
        (found,) = levels
        if found.shape[-1] != grid:
            found = F.interpolate(found, size=(grid, grid), mode="bilinear")
        return F.normalize(found, dim=1)
