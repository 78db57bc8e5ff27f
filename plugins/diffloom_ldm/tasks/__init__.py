"""What a latent diffusion answers beside new images: holes filled in, details found, images turned into others."""
