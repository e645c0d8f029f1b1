"""Slow loops written from the formulas, to compare the library's fast code with."""
