"""What training minimises: pure functions of descriptors and annotated positions (paper, section 4.2)."""

from geoaware.method.losses.contrastive import contrastive_loss
from geoaware.method.losses.dense import dense_errors, dense_loss, disturbed
from geoaware.method.losses.distillation import distillation_loss

__all__ = ["contrastive_loss", "dense_errors", "dense_loss", "distillation_loss", "disturbed"]
