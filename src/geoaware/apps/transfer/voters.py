"""The sources, ready to vote, and what their votes have been worth on each other."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from geoaware.apps.transfer.calibration import ALPHA, MIN_SOURCES, Calibration, shipped
from geoaware.apps.transfer.crop import Window, cells_of_mask
from geoaware.apps.transfer.masks import Outline
from geoaware.apps.transfer.sources import Sources, encode_sources, source_windows
from geoaware.apps.transfer.vote import Evidence, Queries, Vote, VoteSettings, vote
from geoaware.data.images import load_annotated
from geoaware.matcher import Matcher
from geoaware.method.types import AnnotatedImage, FeatureMap, longer_side
from geoaware.runs.errors import InputError, NotFiniteError
from geoaware.runs.progress import Tell, silent
from geoaware.runs.work import Engine, Local, calls

MOST_LEFT_OUT = 200
"""So many sources at most are voted on by the others to adapt the probabilities."""


@dataclass(frozen=True)
class TransferSettings:
    """How keypoints are carried over, beside what the matcher holds.

    Attributes:
        vote: how votes are weighed.
        threshold: keypoints of a smaller probability are marked not visible.
        unshown: what becomes of these: ``"absent"``, or ``"hidden"``, at their likeliest place with flag 1.
        keep_guesses: whether the place and probability of every keypoint are written too.
        margin: around a small object that is cut out, as a share of its box's longer side (`crop_window`).
        below: an object is small if its box's longer side is less than this share of the image's; 0: none.
        masks: whether keypoints are sought only on the target object's mask, where one is given.
        batch: images encoded together; 0: one on a CPU, eight elsewhere.
        find: objects are looked for in every image, and those that are at least so probable are annotated.
        carry_masks: whether the sources' masks are carried over too.
    """

    vote: VoteSettings = field(default_factory=VoteSettings)
    threshold: float = 0.5
    keep_guesses: bool = False
    margin: float = 0.3
    below: float = 0.5
    masks: bool = True
    batch: int = 0
    unshown: str = "absent"
    find: float | None = None
    carry_masks: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InputError(f"the threshold is a probability, 0 to 1, got {self.threshold:g}")
        if self.unshown not in ("absent", "hidden"):
            raise InputError(
                f"keypoints that are not shown are absent or hidden, not {self.unshown!r}", "below"
            )
        if self.find is not None and not 0 <= self.find <= 1:
            raise InputError(
                f"objects are found by a probability, 0 to 1, got {self.find:g}", "min_detection"
            )
        if self.batch < 0:
            raise InputError(f"a batch must hold at least one image, got {self.batch}")


class Voters:
    """The sources, ready to vote on any image; each of their images is encoded once.

    ``queries`` is what they look for, ``windows`` the part of each of their images that is encoded, and
    ``outline`` tells what their masks cover, where these are carried.
    """

    def __init__(
        self,
        sources: Sources,
        matcher: Matcher,
        settings: TransferSettings | None = None,
        engine: Engine | None = None,
        progress: Tell = silent,
    ) -> None:
        self.sources, self.matcher, self.settings = sources, matcher, settings or TransferSettings()
        self.windows = source_windows(sources, self.settings.margin, self.settings.below)
        carry = self.settings.carry_masks
        self.queries, cells = encode_sources(sources, matcher, self.windows, engine, progress, carry)
        self.outline = Outline.of(cells) if carry else None

    @property
    def voting(self) -> int:
        """How many sources vote on a target."""
        nearest = self.settings.vote.nearest
        return min(nearest, len(self.queries)) if nearest else len(self.queries)

    def locate(
        self,
        features: FeatureMap,
        mask: np.ndarray | None = None,
        queries: Queries | None = None,
        others: int = 0,
        carry: bool = False,
    ) -> Vote:
        """Vote on an image, or the part of one, that was encoded.

        Args:
            features: of the image.
            mask: its object, boolean (h, w), if known; not empty.
            queries: of fewer sources than all.
            others: how many other places of each keypoint are found too.
            carry: whether the sources' masks are carried to it, if they are to others.

        Raises:
            NotFiniteError: features are NaN or infinite.
        """
        inside = None if mask is None else cells_of_mask(mask, features.canvas, features.grid)
        queries = self.queries if queries is None else queries
        margin = self.matcher.pose_rule.margin
        found = vote(queries, features, self.matcher.settings, self.settings.vote, margin, inside, others)
        numbers = (found.points[found.known], *(each[found.known] for each in vars(found.evidence).values()))
        if not (math.isfinite(found.distance) and all(each.isfinite().all() for each in numbers)):
            raise NotFiniteError("the features of the target are not finite; try another dtype")
        return replace(found, covered=self.outline(features)) if carry and self.outline else found

    def calibrate(self, engine: Engine | None = None, progress: Tell = silent) -> Calibration:
        """What evidence is worth here: as shipped, adapted to the sources if they are enough."""
        base = shipped(self.voting)
        count = len(self.queries)
        if count < MIN_SOURCES:
            return base
        chosen = range(0, count, -(-count // MOST_LEFT_OUT))
        device = self.matcher.extractor.device.type
        left_out = calls(engine or Local(), self.leave_out, chosen, device, progress, "calibrating")
        log_odds = [each for evidence, _ in left_out for each in base.log_odds(evidence).tolist()]
        right = [each for _, outcome in left_out for each in outcome]
        origin = f"{base.origin}; adapted to {len(right)} keypoints of the sources, each left out in turn"
        return base.adapted(log_odds, right, origin)

    def leave_out(self, row: int) -> tuple[Evidence, list[bool]]:
        """Evidence for the keypoints of one source, found by the others, and which were right."""
        image, window = self.sources.images[row], self.windows[row]
        part = load_annotated(image).crop(window)
        (features,) = self.matcher.features([part], [self.matcher.canvas(part, known=True)])
        found = self.locate(features, queries=self.queries.without(row))
        return judge(found, image, window)


def judge(found: Vote, image: AnnotatedImage, window: Window) -> tuple[Evidence, list[bool]]:
    """Evidence and outcome of the keypoints that were looked for in an annotated image."""
    keypoints, known = image.keypoints, found.known
    # Where each keypoint is annotated; what is not visible is infinitely far away.
    xy = torch.full((len(known), 2), torch.inf, dtype=torch.float64)
    xy[list(keypoints.ids)] = torch.where(keypoints.visible[:, None], keypoints.xy.double(), torch.inf)
    away = (found.points + torch.tensor(window[:2]) - xy).norm(dim=1)
    right = away < ALPHA * max(1.0, longer_side(image.extent))
    evidence = Evidence(*(each[known] for each in vars(found.evidence).values()))
    return evidence, right[known].tolist()
