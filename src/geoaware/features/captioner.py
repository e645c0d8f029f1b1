"""The implicit captioner of ODISE (Xu et al. 2023): what an image shows, as an addition to an empty prompt.

From the CLIP image embedding e of an image: context = text embedding of the prompt + tanh(a) (W e + b + p),
time embedding += tanh(a') (W' e + b' + p'), where p and p' are learned positional embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from geoaware.runs.errors import InputError, reason
from geoaware.runs.files import refuse_pretender
from geoaware.runs.weights import read_checkpoint, write_safetensors

CLIP_HUB_ID = "openai/clip-vit-large-patch14-336"

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

KEYS = (
    "clip_project.linear.weight",
    "clip_project.linear.bias",
    "clip_project.positional_embedding",
    "alpha_cond",
    "time_embed_project.linear.weight",
    "time_embed_project.linear.bias",
    "time_embed_project.positional_embedding",
    "alpha_cond_time_embed",
)
"""Names of the captioner's tensors: in a converted file as they stand, in an ODISE checkpoint as endings."""

_CONVERTER = "convert_captioner in Python, or geoaware info"


class Projection(nn.Module):
    """tanh(alpha) * (linear(embedding) + positional embedding): n vectors of one embedding.

    Leading axes of length one, which ODISE keeps, are dropped.
    """

    def __init__(self, tensors: Mapping[str, Tensor], name: str, alpha: str) -> None:
        super().__init__()
        weight, bias = tensors[f"{name}.linear.weight"], tensors[f"{name}.linear.bias"]
        position, factor = tensors[f"{name}.positional_embedding"], tensors[alpha]
        width = weight.shape[0]
        if weight.ndim != 2 or bias.shape != (width,) or position.shape[-1:] != (width,):
            raise InputError(
                f"no implicit captioner: {name} has a weight of {tuple(weight.shape)}, a bias of "
                f"{tuple(bias.shape)} and a positional embedding of {tuple(position.shape)}"
            )
        position = position.reshape(-1, width)
        if factor.numel() not in (1, width, position.numel()):
            raise InputError(
                f"no implicit captioner: {alpha} of {tuple(factor.shape)} does not fit "
                f"{tuple(position.shape)}"
            )
        factor = factor.reshape(()) if factor.numel() == 1 else factor.reshape(-1, width)
        self.weight, self.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())
        self.position, self.alpha = nn.Parameter(position.float()), nn.Parameter(factor.float())

    def forward(self, embedding: Float[Tensor, "b e"]) -> Float[Tensor, "b n d"]:
        """The vectors, one for each position."""
        projected = F.linear(embedding, self.weight, self.bias)[:, None]
        return self.alpha.tanh() * (projected + self.position)


class ImplicitCaptioner(nn.Module):
    """Offsets of the text context and of the time embedding from CLIP image embeddings.

    Args:
        tensors: by the names in `KEYS`; an `InputError` says which is missing, or that they do not fit.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        missing = [key for key in KEYS if key not in tensors]
        if missing:
            raise InputError(f"no implicit captioner: the tensors {', '.join(missing)} are not there")
        self.text = Projection(tensors, "clip_project", "alpha_cond")
        self.time = Projection(tensors, "time_embed_project", "alpha_cond_time_embed")
        if len(self.time.position) != 1 or self.time.weight.shape[1] != self.text.weight.shape[1]:
            raise InputError("no implicit captioner: its parts for text and time do not fit together")

    def forward(self, embedding: Float[Tensor, "b e"]) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b t"]]:
        """What is added to the text embedding, and to the time embedding."""
        return self.text(embedding), self.time(embedding)[:, 0]


def load_captioner(path: str | Path) -> ImplicitCaptioner:
    """Read a captioner that `convert_captioner` wrote; an `InputError` says what else the file is."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it from an ODISE checkpoint: {_CONVERTER}")
    refuse_pretender(path)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise InputError(
            f"{path}: not a whole safetensors file ({reason(error)}); an ODISE checkpoint is turned into "
            f"one by {_CONVERTER}"
        ) from None
    return _checked(path, tensors)


def convert_captioner(checkpoint: str | Path, out: str | Path | None = None) -> Path:
    """Take the captioner out of an ODISE checkpoint, of which no code is run, and write it as safetensors.

    Args:
        checkpoint: e.g. ``odise_label_coco_50e-b67d2efc.pth``.
        out: where to write; beside the checkpoint, ending in ``.captioner.safetensors``, when not given.

    Returns:
        The file written.

    Raises:
        InputError: the checkpoint cannot be read safely, or holds no captioner or several.
    """
    path = Path(checkpoint)
    goal = Path(out) if out is not None else path.with_suffix(".captioner.safetensors")
    state = read_checkpoint(path, "an ODISE checkpoint (odise_label_coco_50e-….pth)")
    while isinstance(state, Mapping) and isinstance(state.get("model", state.get("state_dict")), Mapping):
        state = state.get("model", state.get("state_dict"))
    if not isinstance(state, Mapping):
        raise InputError(f"{path}: holds a {type(state).__name__}, not the tensors of a model by name")
    named = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    tensors = {key: _only(path, named, key) for key in KEYS}
    _checked(path, tensors)
    write_safetensors(goal, tensors)
    return goal


def clip_pixels(pixels: Float[Tensor, "b 3 s s"], side: int) -> Float[Tensor, "b 3 p p"]:
    """Square images with values in 0…1 as CLIP takes them: bicubic to ``side``, its mean and deviation.

    Without antialiasing, as in the torchvision that ODISE was trained with.
    """
    resized = F.interpolate(pixels.float(), size=(side, side), mode="bicubic")
    mean, std = (torch.tensor(each, device=pixels.device).view(3, 1, 1) for each in (CLIP_MEAN, CLIP_STD))
    return ((resized - mean) / std).to(pixels.dtype)


def _checked(path: Path, tensors: Mapping[str, Tensor]) -> ImplicitCaptioner:
    """A captioner of the tensors of a file, which errors name."""
    try:
        return ImplicitCaptioner(tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _only(path: Path, tensors: Mapping[str, Tensor], key: str) -> Tensor:
    """The one tensor whose name is ``key`` or ends in it after a dot."""
    found = sorted(name for name in tensors if f".{name}".endswith(f".{key}"))
    if len(found) != 1:
        what = f"holds several, {', '.join(found)}" if found else "holds none"
        raise InputError(
            f"{path}: an ODISE checkpoint has one tensor whose name ends in {key}; this one {what}\n"
            f"remedy: give odise_label_coco_50e-b67d2efc.pth"
        )
    return tensors[found[0]].detach().float().contiguous().clone()
