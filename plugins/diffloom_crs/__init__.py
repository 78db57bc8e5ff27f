"""CRS-Diff (Tang et al. 2024): metadata, a content image and any number of maps tell a denoiser what to show."""
