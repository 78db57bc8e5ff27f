"""What conditioners ask of the parts that they are built beside."""

from diffloom.autoencoder import Autoencoder
from diffloom.denoiser import Denoiser
from diffloom.errors import IncompatibleParts


def context_width(denoiser: Denoiser, who: str) -> int:
    """Return the width of a denoiser's context port; IncompatibleParts where it has none."""
    width = denoiser.ports.context
    if not width:
        raise IncompatibleParts(
            "the denoiser has no context port",
            where=who,
            expected="cross-attention to tell it to",
            remedy="give the denoiser a width of `context`",
        )
    return width


class Borrowed:
    """An autoencoder that a conditioner uses and does not own: it is neither trained nor saved with it.

    Args:
        autoencoder: The system's.
    """

    def __init__(self, autoencoder: Autoencoder) -> None:
        self.autoencoder = autoencoder
