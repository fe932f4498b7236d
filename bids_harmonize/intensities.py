"""How intensities are spread in the tissue of a scan, and of the scans of a reference group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.anatomy import tissue_mask
from bids_harmonize.reference import ReferenceScan

BINS = 80
# Fine bins per bin: scans stored in few integers leave gaps that the smoothing must close.
FINE = 16
# Of a scan's tissue; what is brighter is beyond the last bin.
BRIGHTEST = 0.995
# Of the group's scans, per bin: the band and the line within.
PERCENTILES = (5, 50, 95)
NAMES = tuple(f"Percentile{percent}" for percent in PERCENTILES)

Shares = NDArray[np.float64]


def spread(values: NDArray[np.float32], top: float) -> Shares:
    """Share of the values per bin, `BINS` equal bins from 0 to `top`, smoothed by a Gaussian of one bin.

    They sum to 1 less what lies beyond `top`.
    """
    counts = np.histogram(values, bins=BINS * FINE, range=(0, top))[0]
    smooth = ndimage.gaussian_filter1d(counts.astype(np.float64), FINE, mode="reflect")
    return np.asarray(smooth.reshape(BINS, FINE).sum(axis=1) / max(values.size, 1))


@dataclass(frozen=True, kw_only=True)
class ReferenceIntensities:
    """The intensities of a reference group's tissue, in the unit of a model's outputs.

    Attributes
    ----------
    top
        Where the last bin ends.
    shares
        ``(len(PERCENTILES), BINS)``: percentiles over the scans of the share of tissue per bin.
    """

    top: float
    shares: Shares

    @classmethod
    def of_group(cls, group: Sequence[ReferenceScan], unit: float) -> Self:
        """Measure the group's scans, each brought to the level that is `unit` in the outputs."""
        tissues = [_tissue(scan) * np.float32(unit / scan.level) for scan in group]
        top = float(np.ceil(max(np.quantile(values, BRIGHTEST) for values in tissues) / 100) * 100)
        shares = [spread(values, top) for values in tissues]
        return cls(top=top, shares=np.percentile(shares, PERCENTILES, axis=0))

    def card(self) -> dict[str, Any]:
        """What the model card stores."""
        described = (
            f"share of the tissue (voxels brighter than air) in each of {BINS} equal bins of intensity from "
            "0 to Top, in the unit of the outputs; percentiles over the scans of the reference group"
        )
        rows = ([float(f"{share:.4g}") for share in row] for row in self.shares)
        return {"Description": described, "Top": self.top, **dict(zip(NAMES, rows, strict=True))}

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Self:
        """Read what `card` gave.

        Raises
        ------
        LookupError, TypeError, ValueError
            It is damaged.
        """
        shares = np.array([card[name] for name in NAMES], dtype=np.float64)
        top = float(card["Top"])
        if shares.shape != (len(PERCENTILES), BINS) or not np.all(np.isfinite(shares)) or not top > 0:
            raise ValueError(f"shares of shape {shares.shape} up to {top}")
        return cls(top=top, shares=shares)


def _tissue(scan: ReferenceScan) -> NDArray[np.float32]:
    return scan.volume[tissue_mask(scan.volume, scan.zooms)]
