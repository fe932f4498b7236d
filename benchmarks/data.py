"""Everything that the tiers measure on, for one modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from benchmarks.scans import RealScans, Scan
from benchmarks.simulated import PROTOCOLS, REFERENCE_LIKE, Subject, simulated_subjects
from bids_harmonize.training.reference_group import measure_scan
from bids_harmonize.training.sources import at_echo_time

#: The modality that is named as the model of prostates is.
PROSTATE = "prostate-T2w"
#: Networks of 5 and 20 channels; the large one takes a minute per scan.
JUDGES = ("model5", "model20")


@dataclass(frozen=True, kw_only=True)
class Data:
    """Real and simulated scans of one modality, made when they are first asked for.

    Attributes
    ----------
    modality
        T1w or T2w, of heads; or `PROSTATE`.
    development
        Simulate from the heads to choose by, not from those to report on.
    native
        Real scans at their full resolution, not averaged to voxels of up to 2 mm.
    pairs
        A BIDS dataset of participants with several scans of one modality, or None.
    echo_times
        Echo times, ms, from which and to which the group was brought before the model was trained; every
        method then gets the group as it was brought.
    judges
        The segmentation networks of tier J.
    """

    shared: Path
    modality: str
    development: bool = False
    native: bool = False
    pairs: Path | None = None
    echo_times: Sequence[float] | None = None
    judges: Sequence[str] = JUDGES

    @cached_property
    def real(self) -> RealScans:
        suffix, prostate = self.modality.split("-")[-1], self.modality == PROSTATE
        return RealScans(shared=self.shared, modality=suffix, native=self.native, prostate=prostate)

    @cached_property
    def reference(self) -> list[Scan]:
        """The 13 scans of the reference group."""
        return [self._brought(scan) for scan in self.real.reference]

    @cached_property
    def held_out(self) -> list[Scan]:
        """The scan of the participant held out of the reference group."""
        return [self._brought(scan) for scan in self.real.held_out]

    @property
    def sites(self) -> list[Scan]:
        """Scans of other sites; `Scan.site` names them."""
        return self.real.sites

    @cached_property
    def subjects(self) -> list[Subject]:
        """The simulated participants, who can be scanned again."""
        reference = REFERENCE_LIKE[self.modality]
        if self.echo_times:
            reference = replace(reference, te=self.echo_times[1])
        labels = self.shared / "data" / "labels"
        return simulated_subjects(labels, self.modality, self.development, reference)

    @cached_property
    def simulated(self) -> list[Scan]:
        """Every head under six protocols (`Scan.participant` is the head, `Scan.site` the protocol)."""
        return [subject.scan(protocol) for subject in self.subjects for protocol in PROTOCOLS[self.modality]]

    def _brought(self, scan: Scan) -> Scan:
        if self.echo_times is None:
            return scan
        before, after = self.echo_times
        measured = measure_scan(scan.name, scan.volume, scan.zooms, scan.modality)
        # Methods keep what they made by the name of the scan, and tier B has the scans as they are.
        name = f"{scan.name}_at-{after:g}-ms"
        return replace(scan, name=name, volume=at_echo_time(measured, before, after).volume)
