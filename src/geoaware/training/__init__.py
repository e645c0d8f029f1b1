"""Training: of post-processors on stored features, and of the backbone itself."""
