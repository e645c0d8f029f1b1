"""Two loops: `predict.predict` writes where the keypoints were found, `score` turns that into figures.

The first needs torch and is imported by its own name, ``geoaware.evaluation.predict``; scoring does without.
"""

from __future__ import annotations

from geoaware.evaluation.protocols import PROTOCOLS, Protocol, get_protocol
from geoaware.evaluation.score import score, score_file

__all__ = ["PROTOCOLS", "Protocol", "get_protocol", "score", "score_file"]
