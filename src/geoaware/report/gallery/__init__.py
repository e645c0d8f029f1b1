"""Pairs and their matches to look at: one HTML file that needs no server and fetches nothing.

>>> match = Match("nose", 2, (10.0, 20.0), (12.0, 22.0), kind="unjudged", confidence=0.8)
>>> entry = Entry("a--b", "cat", Path("a.jpg"), Path("b.jpg"), (match,))      # doctest: +SKIP
>>> write_gallery([entry], Path("found.html"), title="Found", about={})       # doctest: +SKIP
"""

from __future__ import annotations

from geoaware.report.gallery.entries import KINDS, Entry, Match
from geoaware.report.gallery.from_predictions import Judged, describe, entries, find_images, judge
from geoaware.report.gallery.write import write_gallery

__all__ = [
    "KINDS",
    "Entry",
    "Judged",
    "Match",
    "describe",
    "entries",
    "find_images",
    "judge",
    "write_gallery",
]
