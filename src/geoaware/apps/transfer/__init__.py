"""Annotate a few images and have a whole collection annotated (docs/transfer.md).

>>> sources = read_sources(Path("cats.json"))                                       # doctest: +SKIP
>>> targets = list_targets([Path("photos")])                                        # doctest: +SKIP
>>> transfer(sources, targets, Matcher.from_pretrained("lite"), "found.json")       # doctest: +SKIP
"""

from __future__ import annotations

from geoaware.apps.transfer.calibration import Calibration
from geoaware.apps.transfer.detections import with_detections
from geoaware.apps.transfer.run import Outcome, mask_notes, transfer
from geoaware.apps.transfer.sources import Sources, read_sources
from geoaware.apps.transfer.targets import Targets, list_targets, read_targets
from geoaware.apps.transfer.vote import Vote, VoteSettings, vote
from geoaware.apps.transfer.voters import TransferSettings, Voters

__all__ = [
    "Calibration",
    "Outcome",
    "Sources",
    "Targets",
    "TransferSettings",
    "Vote",
    "VoteSettings",
    "Voters",
    "list_targets",
    "mask_notes",
    "read_sources",
    "read_targets",
    "transfer",
    "vote",
    "with_detections",
]
