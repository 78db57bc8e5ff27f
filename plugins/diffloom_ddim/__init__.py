"""Denoising diffusion implicit models (Song et al. 2021): the sampler, and encoding of data into noise."""
