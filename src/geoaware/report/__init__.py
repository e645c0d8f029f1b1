"""Figures to look at: plots and the gallery."""
