"""What extractors have in common whose cells are the patches of a network of `transformers`."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import replace
from typing import Any, Literal, TypeVar

from torch import nn

from geoaware.features.extractor import Extractor
from geoaware.runs.errors import InputError

Facet = Literal["token", "key", "query", "value"]

# transformers renamed the projections; both names are in use.
_PROJECTIONS = {"key": ("k_proj", "key"), "query": ("q_proj", "query"), "value": ("v_proj", "value")}

Same = TypeVar("Same", bound="PatchNetwork")


class PatchNetwork(Extractor):
    """A network of `transformers` as an extractor.

    Attributes:
        model: the network.
    """

    model: Any

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks that run, in their order.

        Raises:
            InputError: the network is no transformer.
        """

    @property
    def patch(self) -> int:
        """Pixels a side of a cell."""
        return self.layout.size // self.layout.grid

    def on_canvas(self: Same, canvas: int) -> Same:
        """The same network on a canvas of another side; both have the same parameters, not copies of them.

        Raises:
            InputError: the side is no multiple of the patch.
        """
        grid = cells(canvas, self.patch)
        other = twin(self)
        other.layout = replace(self.layout, size=canvas, grid=grid)
        other._placed(grid)
        return other

    def _placed(self, grid: int) -> None:
        """Make ready for another grid what depends on it."""


Module = TypeVar("Module", bound=nn.Module)


def twin(module: Module, own: bool = False) -> Module:
    """A copy of a module whose parameters are those of the module; its buffers are its own.

    With ``own``, those that are trained are its own too.
    """
    shared = {id(each): each for each in module.parameters() if not (own and each.requires_grad)}
    return copy.deepcopy(module, shared)


def cells(canvas: int, patch: int) -> int:
    """How many patches a side of a canvas has.

    Raises:
        InputError: it is no multiple of the patch.
    """
    if canvas < patch or canvas % patch:
        nearest = max(1, round(canvas / patch)) * patch
        raise InputError(
            f"the canvas must be a multiple of {patch}, got {canvas}; the nearest is {nearest}", "canvas"
        )
    return canvas // patch


def tap(layer: nn.Module, facet: Facet) -> nn.Module:
    """The submodule whose output is the facet of the layer."""
    if facet == "token":
        return layer
    for path, module in layer.named_modules():
        if path.rsplit(".", 1)[-1] in _PROJECTIONS[facet] and isinstance(module, nn.Linear):
            return module
    raise InputError(
        f"this version of transformers names the {facet} projection otherwise; use facet='token'"
    )
