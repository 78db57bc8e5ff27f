"""Hints: maps of edges, lines, classes, heights and the like that tell a controlled denoiser where things are."""
