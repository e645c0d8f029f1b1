"""From which side an image shows its object, by template matching (paper, section 3.4)."""
