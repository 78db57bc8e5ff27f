"""StableSR: super-resolution with a frozen diffusion model (Wang et al. 2023, arXiv 2305.07015)."""
