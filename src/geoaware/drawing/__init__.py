"""Images of what the library finds: matches side by side, similarity as heat, dense fields as colours."""

from __future__ import annotations

from geoaware.drawing.draw import Mark, draw_lines, draw_points, draw_text
from geoaware.drawing.field import draw_field
from geoaware.drawing.heatmap import draw_heatmap
from geoaware.drawing.layout import draw_matches, side_by_side

__all__ = [
    "Mark",
    "draw_field",
    "draw_heatmap",
    "draw_lines",
    "draw_matches",
    "draw_points",
    "draw_text",
    "side_by_side",
]
