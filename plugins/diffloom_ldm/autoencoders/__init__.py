"""Autoencoders: the maps between images and the latents that are diffused (Rombach et al. 2022)."""
