"""Images of what the library finds: matches side by side, similarity as heat, features as colour."""

from __future__ import annotations

from geoaware.drawing.draw import Mark, draw_lines, draw_points, draw_text
from geoaware.drawing.heatmap import draw_heatmap, pca_image
from geoaware.drawing.layout import contact_sheet, draw_matches, side_by_side

__all__ = [
    "Mark",
    "contact_sheet",
    "draw_heatmap",
    "draw_lines",
    "draw_matches",
    "draw_points",
    "draw_text",
    "pca_image",
    "side_by_side",
]
