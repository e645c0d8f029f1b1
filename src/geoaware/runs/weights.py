"""Loading saved networks from a hub id or a local folder, with errors that say what to do."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from geoaware.runs.errors import InputError
from geoaware.runs.files import replacing

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
"""Files of a network in its folder."""


@dataclass(frozen=True)
class Source:
    """Where the weights of an extractor come from.

    Attributes:
        extractor: name of the extractor that needs them, for messages.
        place: local folder or hub id.
        hub_id: what to download where ``place`` has nothing.
        revision: of the hub repository.
        setting: the extractor's setting that takes another place.
    """

    extractor: str
    place: str
    hub_id: str
    revision: str | None = None
    setting: str = "weights"

    def folder(self, part: str | None) -> Path:
        """The local folder of a part (``None``: of the whole); it may not exist."""
        return Path(self.place, part) if part else Path(self.place)

    def absent(self, why: str) -> InputError:
        """The error that names both remedies."""
        return InputError(
            f"no weights for {self.extractor} at {self.place!r} ({why})\n"
            f"remedy: with a network, run 'hf download {self.hub_id}'; without, copy that folder here and "
            f"give it as the setting {self.setting}=FOLDER"
        )


def load_network(kind: Any, source: Source, part: str | None = None, **options: Any) -> Any:
    """A `transformers` or `diffusers` network in float32 and evaluation mode.

    Args:
        kind: the class; its ``from_pretrained`` loads.
        source: where from.
        part: subfolder, in the layout of `diffusers` pipelines.
        **options: for ``from_pretrained``.

    Raises:
        InputError: nothing is there, files are damaged, or the weights lack tensors of the class.
    """
    folder = source.folder(part)
    if Path(source.place).is_dir() and not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: no {CONFIG} in this folder; give the folder of a saved {kind.__name__}")
    if part is not None:
        options["subfolder"] = part
    try:
        model, report = kind.from_pretrained(
            source.place, revision=source.revision, output_loading_info=True, **options
        )
    except (OSError, ValueError) as error:
        raise source.absent(_first_line(error)) from None
    except (RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{folder}: damaged, or not the weights of its config.json ({_first_line(error)}); "
            f"copy {source.hub_id} anew"
        ) from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"{folder}: the weights lack {len(missing)} tensors of {kind.__name__}, "
            f"first {missing[0]}; give the folder of {source.hub_id}"
        )
    # Not the method of diffusers: it warns of modules to be kept in float32, of which there are none.
    return nn.Module.float(model).eval()


def shipped_in(folder: Path) -> dict[str, Path]:
    """Folders of the saved networks inside a folder, by name; empty if it does not exist."""
    return {config.parent.name: config.parent for config in sorted(folder.glob(f"*/{CONFIG}"))}


def folder_meant(place: str | os.PathLike[str], shipped: Mapping[str, Path]) -> Path:
    """The folder of a network that is given by the name of shipped weights, or by its path.

    A name of shipped weights means these, also where the working directory has a folder of that name. Such a
    folder is meant by a text with a separator (``"./lite"``) and by a `Path`.
    """
    folder = Path(place)
    return folder if isinstance(place, Path) and folder.is_dir() else shipped.get(str(place), folder)


def digest(tensors: Iterable[tuple[str, Tensor]]) -> bytes:
    """SHA-256 of named tensors: names, shapes, dtypes and values, in the order of the names."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.digest()


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; the folder is not complete") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged, cannot be read ({error}); copy it anew") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def write_pretrained(
    folder: str | os.PathLike[str], state: Mapping[str, Tensor], config: Mapping[str, Any], card: str
) -> Path:
    """Write a network's weights, its config and its model card to a folder, each whole or not at all.

    Raises:
        InputError: the folder cannot be written to.
    """
    place = Path(folder)
    text = json.dumps(config, indent=1) + "\n"  # before anything is written: info may not be JSON
    with replacing(place / WEIGHTS) as draft:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, draft)
    with replacing(place / CONFIG) as draft:
        draft.write_text(text, encoding="utf-8")
    with replacing(place / CARD) as draft:
        draft.write_text(card, encoding="utf-8")
    return place


def model_card(title: str, about: str, info: Mapping[str, Any]) -> str:
    """A model card in Markdown: a title, a sentence, and all that is known of weights, a section each."""
    lines = [f"# {title}", "", about, ""]
    for name, content in info.items():
        lines += [f"## {name.replace('_', ' ').capitalize()}", "", *_as_markdown(content), ""]
    return "\n".join(lines)


def _as_markdown(content: Any) -> list[str]:
    """Text as it is, a mapping as a list, anything else in a code block."""
    if isinstance(content, str):
        return [content]
    if isinstance(content, Mapping):
        lines = []
        for key, value in content.items():
            inner = _as_markdown(value) if isinstance(value, Mapping) else []
            lines += [f"- {key}:", *(f"  {line}" for line in inner)] if inner else [f"- {key}: {value}"]
        return lines
    return ["```json", json.dumps(content, indent=1), "```"]
