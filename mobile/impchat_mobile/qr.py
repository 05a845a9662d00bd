"""Reads QR codes in photos.

In: the bytes of a picture. Out: the text of its QR code. This file does not know what the text means.
"""

from __future__ import annotations

from impchat import images


def read(data: bytes) -> str:
    """The text of the QR code in the picture; "" if there is none. Raises ImageError as `images.prepare`."""
    import cv2
    import numpy as np

    pixels = np.ascontiguousarray(np.asarray(images.decode(data).convert("L")))
    for detector in (cv2.QRCodeDetectorAruco(), cv2.QRCodeDetector()):  # each misses a few that the other reads
        text, _, _ = detector.detectAndDecode(pixels)
        if text:
            return str(text)
    return ""
