"""What training minimises: pure functions of descriptors and annotated positions (paper, section 4.2)."""

from geoaware.losses.contrastive import contrastive_loss
from geoaware.losses.dense import dense_errors, dense_loss, read_descriptors
from geoaware.losses.distillation import distillation_loss

__all__ = ["contrastive_loss", "dense_errors", "dense_loss", "distillation_loss", "read_descriptors"]
