"""Latent diffusion: autoencoders, conditioners, and the tasks that they make possible (Rombach et al. 2022)."""
