"""How a camera was held, as an image file says."""

from __future__ import annotations

from pathlib import Path


def is_turned(path: Path) -> bool:
    """Return whether an image file asks to be turned or mirrored before it is shown, by its Exif orientation."""
    # Torchvision, which reads the images, can apply the orientation and not tell it.
    from PIL import ExifTags, Image

    with Image.open(path) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    # 1 is upright; a damaged block says anything.
    return orientation in range(2, 9)
