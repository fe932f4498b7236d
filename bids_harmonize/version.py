"""The version: one number, the same in a checkout, an installed package and an image."""

from __future__ import annotations

from functools import cache
from pathlib import Path

# The version of BIDS that datasets are written by.
BIDS_VERSION = "1.11.2"


@cache
def version() -> str:
    """Return the version of the code that is running, for example ``0.1.0``."""
    # A checkout is asked first: an older release may be installed beside it.
    in_checkout = Path(__file__).parent.parent / "version"
    if in_checkout.is_file():
        return in_checkout.read_text(encoding="ascii").strip()
    from importlib import metadata

    return metadata.version("bids-harmonize")
