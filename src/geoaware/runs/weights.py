"""Networks in files: those of libraries from a hub or a folder, our own written and read again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from geoaware.runs.errors import InputError, reason
from geoaware.runs.files import refuse_pretender, replacing, without_html

FILES = CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
"""Files of a network in its folder."""

LARGEST = 2**20
"""No width, grid or number of channels of a network is larger; torch counts bytes in 64 bits."""

Network = TypeVar("Network", bound="SavedNetwork")


@dataclass(frozen=True)
class Source:
    """Where the weights of an extractor come from.

    Attributes:
        extractor: name of the extractor that needs them, for messages.
        place: local folder or hub id.
        hub_id: what to download where ``place`` has nothing.
        revision: of the hub repository.
        setting: the extractor's setting that takes another place.
        licence: page where the terms of the weights are accepted, if that is needed to download them.
    """

    extractor: str
    place: str
    hub_id: str
    revision: str | None = None
    setting: str = "weights"
    licence: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether there is a folder of them, be it the one where the hub's library keeps what it fetched."""
        from huggingface_hub import constants

        kept = Path(constants.HF_HUB_CACHE, f"models--{self.place.replace('/', '--')}", "snapshots")
        return Path(self.place).is_dir() or kept.is_dir()

    def absent(self, why: str) -> InputError:
        """The error that names both remedies."""
        terms = f"accept the licence at {self.licence}, log in ('hf auth login') and " if self.licence else ""
        return InputError(
            f"no weights for {self.extractor} at {self.place!r} ({why})\n"
            f"remedy: with a network, {terms}run 'hf download {self.hub_id}'; without, copy that folder here "
            f"and give it as the setting {self.setting}=FOLDER"
        )


def load_network(kind: Any, source: Source, part: str | None = None, **options: Any) -> Any:
    """A network of a class of `transformers` or `diffusers`, in float32 and evaluation mode.

    ``part`` is its subfolder in the layout of `diffusers`; the options are those of ``from_pretrained``.

    Raises:
        InputError: nothing is there, files are damaged, or the weights lack tensors of the class.
    """
    folder = Path(source.place, part or "")
    if Path(source.place).is_dir() and not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: no {CONFIG} in this folder; give the folder of a saved {kind.__name__}")
    if part is not None:
        options["subfolder"] = part
    if not Path(source.place).is_dir():
        options |= hub_options()
    for path in sorted(folder.glob("*")):
        refuse_pretender(path)
    try:
        model, report = kind.from_pretrained(
            source.place, revision=source.revision, output_loading_info=True, **options
        )
    except (OSError, ValueError) as error:
        raise source.absent(first_line(error)) from None
    except (RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{folder}: damaged, or not the weights of its config.json ({first_line(error)}); "
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


def hub_options() -> dict[str, Any]:
    """For loading from the hub: where it does not answer, only what was downloaded before is looked for.

    Its libraries would else try again and again, for half a minute.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # of the library that asks, which has changed before
        return {"local_files_only": True}
    return {}


def shipped_in(folder: Path) -> dict[str, Path]:
    """Folders of the saved networks inside a folder, by name; empty if it does not exist."""
    return {config.parent.name: config.parent for config in sorted(folder.glob(f"*/{CONFIG}"))}


def folder_meant(place: str | os.PathLike[str], home: Path) -> tuple[Path, str]:
    """The folder of a network that is given by name, if shipped, or by path; and the names of those shipped.

    A name of shipped weights means these, also where the working directory has a folder of that name. Such a
    folder is meant by a text with a separator (``"./lite"``) and by a `Path`.
    """
    folder, shipped = Path(place), shipped_in(home)
    known = folder if isinstance(place, Path) and folder.is_dir() else shipped.get(str(place), folder)
    return known, ", ".join(shipped) or "none"


def digest(tensors: Iterable[tuple[str, Tensor]]) -> bytes:
    """SHA-256 of named tensors: names, shapes, dtypes and values, in the order of the names."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.digest()


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors to a file that is there whole or not at all.

    `save_file` would write to a temporary file of its own, which stayed for ever if the process were killed.
    """
    # Parameters in channels-last order are not contiguous, which the format needs.
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as draft:
        draft.write_bytes(save(ready, metadata))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU.

    Raises:
        InputError: it is missing or damaged.
    """
    refuse_pretender(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; the folder is not complete") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged, cannot be read ({reason(error)}); copy it anew") from None


def read_checkpoint(path: Path, example: str) -> Any:
    """What `torch.save` wrote, on the CPU, if it is nothing but tensors and plain values: no code is run.

    Raises:
        InputError: no such file (the message tells to give the example), or not of this sort.
    """
    refuse_pretender(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give {example}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception:  # a damaged pickle fails in a dozen ways, which have no other class in common
        raise InputError(f"{path}: damaged, or holds more than tensors, and was not opened") from None


def first_line(error: Exception) -> str:
    """An error in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def write_folder(place: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], readme: str) -> Path:
    """Write ``model.safetensors``, ``config.json`` and the card ``README.md``, each whole or not at all.

    Raises:
        InputError: the folder cannot be written to.
    """
    # Before anything is written: info may not be JSON.
    texts = {CONFIG: json.dumps(config, indent=1, allow_nan=False) + "\n", CARD: readme}
    write_safetensors(place / WEIGHTS, tensors)
    for name, text in texts.items():
        with replacing(place / name) as draft:
            draft.write_text(text, encoding="utf-8")
    return place


def read_config(
    path: Path, form: str, section: str, kind: type, origin: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The section of a ``config.json`` with the values of a dataclass, and its info.

    Args:
        path: of the file.
        form: the format that it must name.
        section: with the values.
        kind: class of the values; only the names are compared.
        origin: what messages tell to give instead.

    Raises:
        InputError: nothing is there, or it is damaged or of another format.
    """
    refuse_pretender(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give {origin}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); copy the folder anew") from None
    if not isinstance(config, dict) or config.get("format") != form:
        raise InputError(f"{path}: is not the config of a {form}; give {origin}")
    values, info = config.get(section), config.get("info")
    if not isinstance(values, dict) or not isinstance(info, dict):
        raise InputError(f"{path}: damaged, lacks {section} or info; copy the folder anew")
    unknown = sorted(values.keys() - {each.name for each in fields(kind)})
    if unknown:
        raise InputError(f"{path}: unknown setting {unknown[0]}; a newer geoaware may know it")
    return values, info


def card(noun: str, count: int, shape: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    """A model card in Markdown: shape and size of a network, and everything in ``info``, a section each."""
    told = ", ".join(f"{key} {value}" for key, value in shape.items())
    lines = [f"# {noun.capitalize()} for geoaware", "", f"{count:,} parameters: {told}.", ""]
    for name, content in info.items():
        lines += [f"## {name.replace('_', ' ').capitalize()}", "", *_as_markdown(content), ""]
    return without_html("\n".join(lines))


class SavedNetwork(nn.Module):
    """A network that is kept in a folder, with the values that shape it and what is known of its weights.

    Attributes:
        noun: what it is, for messages and the title of its model card.
        format: as the config says it.
        section: of the config, with the values that shape the network; also the attribute that has them.
        values: class of these values.
        info: where the weights come from and what was measured; kept in ``config.json``.
    """

    noun: ClassVar[str]
    format: ClassVar[str]
    section: ClassVar[str]
    values: ClassVar[type]

    def __init__(self) -> None:
        super().__init__()
        self.info: dict[str, Any] = {}

    @classmethod
    def of_values(cls: type[Network], **values: Any) -> Network:
        """A network of the values in the section, with weights yet to be loaded."""
        return cls(**values)

    def saved_state(self) -> dict[str, Tensor]:
        """The tensors that are written."""
        return self.state_dict()

    def card(self) -> str:
        """The model card in Markdown: shape and size, and everything in `info`, a section each."""
        count = sum(each.numel() for each in self.parameters())
        return card(self.noun, count, asdict(getattr(self, self.section)), self.info)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``model.safetensors``, ``config.json`` and the card ``README.md``, each whole or not at all.

        Raises:
            InputError: the folder cannot be written to.
        """
        config = {"format": self.format, self.section: asdict(getattr(self, self.section)), "info": self.info}
        return write_folder(Path(folder), config, self.saved_state(), self.card())

    @classmethod
    def from_folder(cls: type[Network], folder: Path, origin: str) -> Network:
        """What `save_pretrained` wrote, for use; messages tell to give ``origin`` instead.

        Raises:
            InputError: nothing is there, or it is damaged or of another format.
        """
        path = folder / CONFIG
        values, info = read_config(path, cls.format, cls.section, cls.values, origin)
        try:
            lists = {key: tuple(each) for key, each in values.items() if isinstance(each, list)}
            network = cls.of_values(**{**values, **lists})
        except (TypeError, InputError) as error:
            raise InputError(
                f"{path}: damaged, no {cls.noun} can be made of its {cls.section} ({reason(error)}); "
                "copy it anew"
            ) from None
        network.load_whole(read_safetensors(folder / WEIGHTS), folder / WEIGHTS)
        network.info = info
        return network.eval()

    def load_whole(self, state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
        """Load weights, all of them and no others; counters of training are no weights.

        Raises:
            InputError: names or shapes differ from the network's.
        """
        wanted = {name: each for name, each in self.state_dict().items() if each.is_floating_point()}
        missing, strange = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
        if missing or strange:
            what = f"lacks {missing[0]}" if missing else f"has {strange[0]}, which is not known"
            raise InputError(f"{path}: is not of this {self.noun} ({what}); copy it anew")
        for name, tensor in wanted.items():
            if state[name].shape != tensor.shape:
                raise InputError(
                    f"{path}: {name} has shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}; "
                    "the width or the extractor's channels are others"
                )
        self.load_state_dict(dict(state), strict=False)


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
