"""Training of post-processors on cached features (paper, sections 4.2, 4.3 and appendix A)."""

from geoaware.training.post_processor.config import TrainConfig, load_config

__all__ = ["TrainConfig", "load_config"]
