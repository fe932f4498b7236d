"""What the sidecars say, scan by scan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from bids_harmonize.bids.runs import HARMONIZED, UNHARMONIZED
from bids_harmonize.distribution import Distribution, read_distribution
from bids_harmonize.errors import BadData
from bids_harmonize.report.records import read_sidecar


@dataclass(frozen=True, kw_only=True)
class Result:
    """One scan that was harmonized or passed through.

    Attributes
    ----------
    sidecar
        Its JSON file.
    metadata
        The content of that.
    before, after
        Its intensities; None where they were not measured.
    """

    sidecar: Path
    metadata: Mapping[str, Any]
    before: Distribution | None
    after: Distribution | None

    @property
    def name(self) -> str:
        """Of the image."""
        return f"{self.sidecar.stem}.nii.gz"

    @property
    def participant(self) -> str:
        """As in ``sub-01``."""
        return self.sidecar.name.split("_")[0]

    @property
    def suffix(self) -> str:
        """As in ``T1w``."""
        return self.sidecar.stem.rsplit("_", 1)[-1]

    @property
    def record(self) -> Mapping[str, Any]:
        """How the image was made."""
        return self.metadata["BidsHarmonize"]

    @property
    def harmonized(self) -> bool:
        """Or else passed through."""
        return self.record.get("Harmonized") is not False

    @property
    def unlike(self) -> bool:
        """Whether it is unlike what the model is meant for."""
        return self.record.get("OutOfDistribution", {}).get("Flagged") is True

    @property
    def warnings(self) -> list[str]:
        """What to look at before the image is used."""
        return list(self.record.get("Warnings", []))


def read_results(derivatives: Path) -> dict[str, list[Result]]:
    """All scans that have a sidecar, by suffix; both in the order of their names.

    Raises
    ------
    BadData
        A sidecar cannot be read, or is not of this program.
    """
    found = (derivatives.glob(f"sub-*/**/sub-*_desc-{desc}_*.json") for desc in (HARMONIZED, UNHARMONIZED))
    results: defaultdict[str, list[Result]] = defaultdict(list)
    for sidecar in sorted(chain.from_iterable(found)):
        try:
            result = _read(sidecar)
        except BadData:
            if sidecar.exists():
                raise
            # Another process is doing the scan again.
            continue
        results[result.suffix].append(result)
    return dict(sorted(results.items()))


def _read(sidecar: Path) -> Result:
    metadata = read_sidecar(sidecar)
    described = metadata["BidsHarmonize"].get("Intensities")
    return Result(
        sidecar=sidecar,
        metadata=metadata,
        before=read_distribution(described, "Before"),
        after=read_distribution(described, "After"),
    )
