"""Small pictures of scans before and after, side by side: drawn with a scan's figures, shown for a group."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.report.components.pictures import grey_pixels

THUMBNAIL = "thumbnail"
# Pixels of a picture's height and of each half's largest width, and of the gap between the halves.
HEIGHT, MAX_WIDTH, GAP = 96, 128, 2
# Of 100: 1,000 pictures of this quality take some 5 MB in a page.
QUALITY = 75


def figure_pattern(sidecar: Path, figures: Path) -> str:
    """The path of a scan's figures without their ending: a format string with ``{}`` for what they show."""
    before, _, suffix = sidecar.stem.rsplit("_", 2)
    return f"{_literal(str(figures / before))}_desc-{{}}_{_literal(suffix)}"


def thumbnail_path(pattern: str) -> Path:
    """Where the small picture of a scan lies, by the pattern of its figures."""
    return Path(pattern.format(THUMBNAIL) + ".webp")


def thumbnail(halves: list[tuple[NDArray[np.float32], float] | None], extent: tuple[float, float]) -> bytes:
    """A picture of the same slice before and after.

    Parameters
    ----------
    halves
        Each a slice, across and upwards, and what is white; black is 0. None for an image that there is not.
    extent
        Size of the slice in mm, across and upwards.
    """
    from PIL import Image

    across, upwards = extent
    width = int(np.clip(round(HEIGHT * across / upwards), 1, MAX_WIDTH))
    picture = Image.new("L", (2 * width + GAP, HEIGHT))
    for place, half in enumerate(halves):
        if half is not None:
            small = Image.fromarray(grey_pixels(*half)).resize((width, HEIGHT))
            picture.paste(small, (place * (width + GAP), 0))
    file = io.BytesIO()
    picture.save(file, format="webp", quality=QUALITY)
    return file.getvalue()


def _literal(text: str) -> str:
    """A text as part of a format string."""
    return text.replace("{", "{{").replace("}", "}}")
