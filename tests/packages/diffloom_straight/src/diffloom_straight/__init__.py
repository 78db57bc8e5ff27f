"""A schedule and a sampler from outside of diffloom."""
