"""Protocols by name: papers count differently, so a figure means something only with its protocol.

Distances are measured in the target's own pixels. The paper measures them on a padded square of 840 pixels,
which scales both axes and the threshold base by the same factor, so the same keypoints count as correct.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from geoaware.evaluation.averages import Averaging
from geoaware.runs.errors import InputError

if TYPE_CHECKING:
    from geoaware.data import DataSet
    from geoaware.method.types import AnnotatedImage

Base = Literal["box", "image", "keypoints"]


@dataclass(frozen=True)
class Protocol:
    """How one line of papers counts; the defaults are those of the paper (section 5).

    One of your own stands wherever a protocol is named; predictions files hold its rules.

    Attributes:
        name: of the protocol; none of `PROTOCOLS`, unless it is that one.
        about: whose it is, in a line.
        base: what alpha is a share of: the longer side of the target object's box, of the target image, or of
            the box around the target's visible keypoints.
        strict: correct is closer than the threshold (``<``); else at most as far (``<=``).
        averaging: the average that is quoted; all are always computed.
        alphas: thresholds that are quoted.
        flip: where a mirrored query is read. ``"pixel"``: at ``(w - 1) - x``, so edge pixels stay in the
            image; ``"edge"``: at ``w - x``, as released.
        inside_picture: whether matches are looked for on the image only, or on the padding too.
        released_pose: the pose is chosen by the rule of the released code (`PoseRule.as_released`), masks
            are those of both images and not of the source alone, and a mirrored query is read at its partner
            only where both images show that.
    """

    name: str
    about: str = ""
    base: Base = "box"
    strict: bool = True
    averaging: Averaging = "per_image"
    alphas: tuple[float, ...] = (0.01, 0.05, 0.1)
    flip: Literal["pixel", "edge"] = "pixel"
    inside_picture: bool = False
    released_pose: bool = False

    @property
    def rule(self) -> str:
        """What counts as correct, in a line."""
        base = {"box": "object box", "image": "image", "keypoints": "box of the keypoints"}[self.base]
        sign = "<" if self.strict else "<="
        return f"distance {sign} alpha x longer side of the target's {base}"

    def size(self, target: AnnotatedImage) -> float:
        """Threshold base of a target image, in its own pixels.

        Raises:
            InputError: the image has no box, or what the base is taken from has no extent.
        """
        box = target.keypoints.box if self.base == "keypoints" else target.box
        if self.base == "image":
            box = (0, 0, target.size[0], target.size[1])
        if box is None:
            raise InputError(
                f"{target.id}: has no object box, from which protocol {self.name} takes its threshold; "
                "choose another protocol, such as pf-pascal (image) or pf-willow (box of the keypoints)",
                parameter="protocol",
            )
        x1, y1, x2, y2 = box
        extent = float(max(x2 - x1, y2 - y1))
        if not (math.isfinite(extent) and extent > 0):
            raise InputError(
                f"{target.id}: the {self.base} that protocol {self.name} takes its threshold from has no "
                f"extent ({extent:g} pixels); mend the annotation or leave the image out"
            )
        return extent


_PF_ALPHAS = (0.05, 0.1, 0.15)

# What is not said is as in the paper.
_ALL = (
    Protocol("paper", "Telling Left from Right, as the paper says (SPair-71k, AP-10K; tables 3 to 5)"),
    Protocol(
        "released",
        "Telling Left from Right, as the released evaluation chooses poses and mirrors points",
        flip="edge",
        released_pose=True,
    ),
    Protocol(
        "dift",
        "DIFT (Tang et al. 2023) and others that pool all points, in original pixels",
        strict=False,
        averaging="per_point",
        inside_picture=True,
    ),
    Protocol("pf-pascal", "PF-PASCAL in the paper: shares of the image", base="image", alphas=_PF_ALPHAS),
    Protocol(
        "pf-willow",
        "PF-WILLOW as usual: shares of the box around the target's keypoints",
        base="keypoints",
        strict=False,
        alphas=_PF_ALPHAS,
        inside_picture=True,
    ),
    Protocol(
        "cub",
        "CUB-200-2011 and AwA-Pose as Aygün and Mac Aodha (2022) count",
        strict=False,
        alphas=(0.1,),
        inside_picture=True,
    ),
    Protocol(
        "tss",
        "TSS as its authors count (Taniai et al. 2016): foreground pixels, mean of the three groups",
        base="image",
        strict=False,
        averaging="category_per_image",
        alphas=(0.05,),
        inside_picture=True,
    ),
    Protocol(
        "soco",
        "SOCO as its authors count (Dünkel et al. 2026): pairs, then categories",
        averaging="category_per_image",
        alphas=(0.1,),
    ),
)

PROTOCOLS: dict[str, Protocol] = {each.name: each for each in _ALL}

FOR_BASE: dict[Base, str] = {"box": "paper", "image": "pf-pascal", "keypoints": "pf-willow"}
"""The protocol to take where none is named, by what a data set usually takes its threshold from."""

_FOR_DATA = {"cub": "cub", "awa-pose": "cub", "tss": "tss", "soco": "soco"}
"""Data sets that are counted in a way of their own."""


def usual_protocol(data: DataSet) -> Protocol:
    """The protocol to take for a data set where none is named."""
    return PROTOCOLS[_FOR_DATA.get(data.name) or FOR_BASE[data.threshold_base]]


def check_alphas(alphas: Sequence[float]) -> None:
    """Make sure that every threshold is a share of the base, above 0 and at most 1.

    Raises:
        InputError: one is not, perhaps because it was given in per cent.
    """
    for alpha in alphas:
        if not 0 < alpha <= 1:
            hint = f"; for {alpha:g} % give {alpha / 100:g}" if 1 < alpha <= 100 else ""
            raise InputError(
                f"alpha is a share of the threshold base, above 0 and at most 1, got {alpha:g}{hint}"
            )


def get_protocol(name: str | Protocol) -> Protocol:
    """A protocol by name; one that is given itself is given back.

    Raises:
        InputError: there is none of that name (the message lists them), or another one has its name.
    """
    if isinstance(name, Protocol):
        if PROTOCOLS.get(name.name, name) != name:
            raise InputError(f"another protocol is called {name.name!r} already; choose another name")
        return name
    if name not in PROTOCOLS:
        raise InputError(f"unknown protocol {name!r}; choose {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
