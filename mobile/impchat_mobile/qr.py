"""A QR code in a photo -> what it says.

In: the bytes of a picture. Out: its text. This file does not know what is in the text.
"""

from __future__ import annotations

from impchat import images


def read(data: bytes) -> str:
    """The text of the QR code in the picture; "": there is none. Raises ImageError as `images.prepare`."""
    import cv2
    import numpy as np

    pixels = np.ascontiguousarray(np.asarray(images.decode(data).convert("L")))
    text, _, _ = cv2.QRCodeDetector().detectAndDecode(pixels)
    return str(text)
