"""The U-Net of DDPM, of Improved DDPM and ADM, and of latent diffusion up to Stable Diffusion 2, as one plugin."""

from diffloom_unet.unet import UNet

__all__ = ["UNet"]
