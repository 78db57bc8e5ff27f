"""Metrics: fidelity of restored images, distances between sets of images, recognition, likelihood."""
