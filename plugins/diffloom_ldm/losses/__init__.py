"""Losses of autoencoders: likelihoods, perceptual distance, and a judge of patches."""
