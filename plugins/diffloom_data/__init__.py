"""Data sets of images, and the transforms that crop, turn and colour their samples."""
