"""Histograms of the intensities of tissue: of one scan, and of the scans of a reference group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.files.rounding import round_significant
from bids_harmonize.measures.types import Array

HISTOGRAM_BINS = 80
# Values are counted in finer bins first: scans stored in few integers leave gaps that smoothing must close.
FINE_BINS_PER_BIN = 16
# Tissue brighter than this quantile of its scan may lie beyond the last bin.
TOP_QUANTILE = 0.995
# A group is described, per bin, by these percentiles over its scans: a band and the line within.
PERCENTILES = (5, 50, 95)
# This share of the tissue is darker than what is white in a picture.
BRIGHT_SHARE = 0.99
PERCENTILE_KEYS = tuple(f"Percentile{percent}" for percent in PERCENTILES)


def tissue_histogram(values: NDArray[np.float32], top: float) -> Array:
    """Share of the values per bin, `HISTOGRAM_BINS` equal bins from 0 to `top`.

    They are smoothed by a Gaussian of one bin. Together they are 1 less the share of what lies beyond `top`.
    """
    counts = np.histogram(values, bins=HISTOGRAM_BINS * FINE_BINS_PER_BIN, range=(0, top))[0]
    smooth = ndimage.gaussian_filter1d(counts.astype(np.float64), FINE_BINS_PER_BIN, mode="reflect")
    return np.asarray(smooth.reshape(HISTOGRAM_BINS, FINE_BINS_PER_BIN).sum(axis=1) / max(values.size, 1))


@dataclass(frozen=True, kw_only=True)
class ReferenceIntensities:
    """The intensities of a reference group's tissue, in the unit of a model's outputs.

    Attributes
    ----------
    top
        Upper end of the last bin.
    shares
        ``(len(PERCENTILES), HISTOGRAM_BINS)``: percentiles over the scans of the share of tissue per bin.
    """

    top: float
    shares: Array

    @classmethod
    def of_group(cls, tissues: Sequence[NDArray[np.float32]]) -> Self:
        """Measure the tissue of each of the group's scans, in the unit of the outputs."""
        top = float(np.ceil(max(np.quantile(values, TOP_QUANTILE) for values in tissues) / 100) * 100)
        shares = [tissue_histogram(values, top) for values in tissues]
        return cls(top=top, shares=np.percentile(shares, PERCENTILES, axis=0))

    @property
    def bright(self) -> float:
        """The intensity below which nearly all tissue of a typical scan of the group lies."""
        typical = np.cumsum(self.shares[PERCENTILES.index(50)])
        below = int(np.searchsorted(typical, BRIGHT_SHARE * typical[-1])) + 1
        return self.top * min(below, HISTOGRAM_BINS) / HISTOGRAM_BINS

    def card(self) -> dict[str, Any]:
        """What the model card stores."""
        described = (
            f"share of the tissue (voxels brighter than air) in each of {HISTOGRAM_BINS} equal bins of "
            "intensity from 0 to Top, in the unit of the outputs; "
            "percentiles over the scans of the reference group"
        )
        rows = ([round_significant(share, 4) for share in row] for row in self.shares)
        return {"Description": described, "Top": self.top, **dict(zip(PERCENTILE_KEYS, rows, strict=True))}

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Self:
        """Read what `card` made.

        Raises
        ------
        LookupError, TypeError, ValueError
            The card is damaged.
        """
        shares = np.array([card[name] for name in PERCENTILE_KEYS], dtype=np.float64)
        top = float(card["Top"])
        if (
            shares.shape != (len(PERCENTILES), HISTOGRAM_BINS)
            or not np.all(np.isfinite(shares))
            or not top > 0
        ):
            raise ValueError(f"shares of shape {shares.shape} up to {top}")
        return cls(top=top, shares=shares)
