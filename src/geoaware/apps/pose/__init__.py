"""From which side an image shows its object, by template matching (paper, section 3.4).

>>> predictor = PosePredictor(Matcher.from_pretrained("lite"), read_template_sets("cats"))    # doctest: +SKIP
>>> distances = predictor.distances(bare_image("cat1.jpg", Path("photos/cat1.jpg")))          # doctest: +SKIP
>>> vote(distances), vote(distances, among=("left", "right"))                                 # doctest: +SKIP
"""

from __future__ import annotations

from geoaware.apps.pose.predict import PosePrediction, PosePredictor, PoseSettings, vote
from geoaware.apps.pose.run import PoseWork, predict_poses
from geoaware.apps.pose.scores import score_poses
from geoaware.apps.pose.templates import bare_image, read_template_sets

__all__ = [
    "PosePrediction",
    "PosePredictor",
    "PoseSettings",
    "PoseWork",
    "bare_image",
    "predict_poses",
    "read_template_sets",
    "score_poses",
    "vote",
]
