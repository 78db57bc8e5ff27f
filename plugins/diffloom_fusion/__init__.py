"""Image fusion: one picture of several modalities, by features of a diffusion model (Yue et al. 2023) or by rules."""
