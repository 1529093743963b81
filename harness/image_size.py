"""Which sizes of images models can see: what the sides of an image may be."""

NARROWEST_PX = 2
# Long side over short side. Scaled to 1024 pixels, as SAM does, five pixels are left of the short
# side.
MOST_EXTREME = 200


def size_fault(height: int, width: int) -> str | None:
    """Return why an image of this size, in pixels, is too narrow for models; None if it is not."""
    short, long = sorted((height, width))
    if short >= NARROWEST_PX and long <= MOST_EXTREME * short:
        return None
    expected = f"expected sides of {NARROWEST_PX} pixels or more, at most {MOST_EXTREME}:1"
    return f"too narrow for the models: {width} x {height} pixels; {expected}"
