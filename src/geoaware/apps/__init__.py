"""What is built on the library: transfer of keypoints, pose prediction, the demo, HTTP."""
