"""The paper: coordinates, matching, pose alignment, the post-processor, its losses, keypoints and metrics."""
