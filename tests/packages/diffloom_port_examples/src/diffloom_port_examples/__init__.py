"""Two conditioners that tell a denoiser something through its taps."""
