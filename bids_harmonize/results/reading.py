"""What the sidecars say, scan by scan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from bids_harmonize.bids.run import HARMONIZED, UNHARMONIZED, natural_key
from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.files.json_object import read_object
from bids_harmonize.files.schema import check_fields, is_text, list_of
from bids_harmonize.measures.scan_intensities import IntensityProfile
from bids_harmonize.results.provenance import Provenance, provenance_of


@dataclass(frozen=True, kw_only=True)
class Result:
    """One scan that was harmonized or passed through.

    Attributes
    ----------
    sidecar
        Its JSON file.
    metadata
        The content of that.
    provenance
        How the image was made.
    """

    sidecar: Path
    metadata: Mapping[str, Any]
    provenance: Provenance

    @property
    def name(self) -> str:
        """Name of the image."""
        return f"{self.sidecar.stem}.nii.gz"

    @property
    def participant(self) -> str:
        """The participant, as in ``sub-01``."""
        return self.sidecar.name.split("_")[0]

    @property
    def participant_folder(self) -> Path | None:
        """The folder of the participant's outputs; None where the sidecar lies in none of that name."""
        return next((folder for folder in self.sidecar.parents if folder.name == self.participant), None)

    @property
    def suffix(self) -> str:
        """The suffix, as in ``T1w``."""
        return self.sidecar.stem.rsplit("_", 1)[-1]

    @property
    def sources(self) -> Sequence[str]:
        """URIs of the images that it was made from."""
        return self.metadata.get("Sources", [])

    @property
    def harmonized(self) -> bool:
        """Whether the image is harmonized; otherwise it was passed through."""
        return not self.provenance.passed_through

    @property
    def out_of_distribution(self) -> bool:
        """Whether the scan was found to be one that the model is not meant for."""
        return self.provenance.out_of_distribution.flagged is True

    @property
    def warnings(self) -> Sequence[str]:
        """What a user should look at before the image is used."""
        return self.provenance.warnings

    @property
    def before(self) -> IntensityProfile | None:
        """Intensities of the scan; None where they were not measured."""
        return self.provenance.intensities.before

    @property
    def after(self) -> IntensityProfile | None:
        """Intensities of the harmonized image; None where they were not measured."""
        return self.provenance.intensities.after


def read_result(sidecar: Path) -> Result:
    """Read the sidecar of a derivative.

    Raises
    ------
    BadData
        It cannot be read, is another program's, or is damaged.
    """
    metadata = read_object(sidecar)
    provenance = provenance_of(sidecar, metadata)
    check_fields(sidecar, metadata, {"Sources": list_of(is_text)})
    return Result(sidecar=sidecar, metadata=metadata, provenance=provenance)


def read_results(derivatives: Path) -> dict[str, list[Result]]:
    """Read all scans that have a sidecar, by suffix; both in the order of their names.

    Raises
    ------
    NoInput, BadData
        A sidecar cannot be read, or is not of this program.
    """
    found = (derivatives.glob(f"sub-*/**/sub-*_desc-{desc}_*.json") for desc in (HARMONIZED, UNHARMONIZED))
    results: defaultdict[str, list[Result]] = defaultdict(list)
    for sidecar in sorted(chain.from_iterable(found)):
        try:
            result = read_result(sidecar)
        except (BadData, NoInput):
            if sidecar.exists():
                raise
            # Another process is doing the scan again.
            continue
        results[result.suffix].append(result)
    return dict(sorted(results.items()))


def has_results(derivatives: Path, label: str) -> bool:
    """Whether there is anything to report of a participant."""
    return bool(sidecars_of(derivatives, label))


def participants_with_results(derivatives: Path) -> list[str]:
    """Labels of the participants who have results, in natural order."""
    folders = sorted(derivatives.glob("sub-*/"), key=lambda path: natural_key(PurePosixPath(path.name)))
    labels = [path.name.removeprefix("sub-") for path in folders]
    return [label for label in labels if has_results(derivatives, label)]


def sidecars_of(derivatives: Path, label: str) -> list[Path]:
    """The sidecars of a participant's results, in natural order."""
    folder = derivatives / f"sub-{label}"
    found = [
        path
        for desc in (HARMONIZED, UNHARMONIZED)
        for path in folder.glob(f"**/anat/sub-*_desc-{desc}_*.json")
        if path.is_file()
    ]
    return sorted(
        found, key=lambda path: natural_key(PurePosixPath(path.relative_to(derivatives).as_posix()))
    )
