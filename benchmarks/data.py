"""Everything that the tiers measure on, for one modality."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.scans import RealScans, Scan
from benchmarks.simulated import PROTOCOLS, Subject, simulated_subjects

#: As the model is called.
PROSTATE = "prostate-T2w"


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
        A BIDS dataset of people with several scans of one modality, or None.
    """

    shared: Path
    modality: str
    development: bool = False
    native: bool = False
    pairs: Path | None = None

    @cached_property
    def real(self) -> RealScans:
        suffix, prostate = self.modality.split("-")[-1], self.modality == PROSTATE
        return RealScans(shared=self.shared, modality=suffix, native=self.native, prostate=prostate)

    @property
    def reference(self) -> list[Scan]:
        """The 13 scans of the reference group."""
        return self.real.reference

    @property
    def left_out(self) -> list[Scan]:
        """The scan of the person left out of the reference group."""
        return self.real.left_out

    @property
    def sites(self) -> list[Scan]:
        """Scans of other sites; `Scan.site` names them."""
        return self.real.sites

    @cached_property
    def subjects(self) -> list[Subject]:
        """The simulated people, who can be scanned again."""
        return simulated_subjects(self.shared / "data" / "labels", self.modality, self.development)

    @cached_property
    def simulated(self) -> list[Scan]:
        """Every head under six protocols (`Scan.person` is the head, `Scan.site` the protocol)."""
        return [subject.scan(protocol) for subject in self.subjects for protocol in PROTOCOLS[self.modality]]
