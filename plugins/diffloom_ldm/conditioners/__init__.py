"""What a latent diffusion is told: texts, layouts, semantic maps, images and what of them is to be filled in."""
