"""A participant's scans as HTML: before and after, what was done to them, and what to look at."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from markupsafe import Markup

from bids_harmonize.measures.shared_curve import SharedCurve
from bids_harmonize.model.card import ModelCard
from bids_harmonize.report.components.numbers import join_values
from bids_harmonize.report.components.page import render_page
from bids_harmonize.report.components.panels import Panel, pool_panel
from bids_harmonize.report.participant.edit_map import edit_ramp
from bids_harmonize.report.participant.manifest import FigureInputs, FigureManifest
from bids_harmonize.report.participant.methods import methods
from bids_harmonize.results.provenance import Provenance
from bids_harmonize.results.reading import Result
from bids_harmonize.version import version

ACQUISITION = {
    "Manufacturer": "Manufacturer",
    "ManufacturersModelName": "Scanner",
    "MagneticFieldStrength": "Field, T",
    "RepetitionTime": "Repetition time, s",
    "EchoTime": "Echo time, s",
    "InversionTime": "Inversion time, s",
    "FlipAngle": "Flip angle, degrees",
}


@dataclass(frozen=True, kw_only=True)
class ScanSection:
    """A scan on the page.

    Attributes
    ----------
    result
        The content of its sidecar.
    scan
        The files that its figures are made from.
    drawn
        Which figures there are; None if there are none, and then `problem` says why.
    card
        The model card; None where it is not known.
    """

    result: Result
    scan: FigureInputs
    drawn: FigureManifest | None
    problem: str
    card: ModelCard | None

    @property
    def provenance(self) -> Provenance:
        """How the image was made."""
        return self.result.provenance

    @property
    def name(self) -> str:
        """Name of the scan, without what tells results from it."""
        before, _, suffix = self.result.sidecar.stem.rsplit("_", 2)
        return f"{before}_{suffix}"

    @property
    def harmonized(self) -> bool:
        """Whether the image is harmonized; otherwise it was passed through."""
        return self.result.harmonized

    @property
    def warnings(self) -> Sequence[str]:
        """What a user should look at before the image is used."""
        return self.result.warnings

    def picture(self, what: str, plane: str) -> str:
        """Path of a slice from the page: ``sub-<label>/figures/<name>``."""
        return "/".join(self.scan.picture(what, plane).parts[-3:])

    def drawing(self, what: str) -> Markup:
        """Tone curves or histogram, which this program drew as SVG."""
        return Markup(self.scan.drawing(what).read_text(encoding="utf-8"))

    @property
    def pool_panel(self) -> Panel | None:
        """The curve of its pool and its own; None where it is in none."""
        pool, own = self.provenance.pool, self.provenance.overall_curve
        if not (pool.curve.known and own.known):
            return None
        shared = SharedCurve(curve=pool.curve, scans=pool.others or 0)
        return pool_panel(shared, [own], f"The curve of the pool {pool.label}, and the scan's own")

    @property
    def details(self) -> list[tuple[str, str]]:
        """Files, versions and settings, as far as they are known."""
        provenance, metadata = self.provenance, self.result.metadata
        rows = [
            ("Image", self.scan.image.name),
            ("Made from", join_values([unquote(source) for source in self.result.sources])),
            ("SHA-256 of the original", provenance.input_sha256),
            ("Model", provenance.model),
            ("SHA-256 of the weights", provenance.model_sha256),
            ("Pool", self.provenance.pool.label),
            ("SHA-256 of the pool", self.provenance.pool.sha256),
            ("Model made on", self.card.created if self.card else None),
            ("bids-harmonize", provenance.version),
            ("Command", shlex.join(provenance.command) if provenance.command else "not recorded"),
            ("Device", provenance.device),
            ("PyTorch", provenance.torch_version),
            ("CUDA", provenance.cuda_version),
            ("Threads", provenance.threads),
            ("Seed", provenance.seed),
            ("Time, s", provenance.elapsed_seconds),
            *((label, metadata.get(key)) for key, label in ACQUISITION.items()),
            ("Voxels", " × ".join(map(str, self.drawn.voxels)) if self.drawn else None),
        ]
        return [(label, str(value)) for label, value in rows if value is not None]


def participant_page(label: str, scans: Sequence[ScanSection], cards: Mapping[str, ModelCard]) -> str:
    """The page about a participant, HTML.

    Parameters
    ----------
    label
        The participant's label, without ``sub-``.
    scans
        Its scans, in the order of the page.
    cards
        Model cards by the SHA-256 of their weights.
    """
    harmonized = [scan.provenance for scan in scans if scan.harmonized]
    return render_page(
        "participant",
        script=True,
        title=f"Participant sub-{label}",
        version=version(),
        scans=scans,
        harmonized=len(harmonized),
        passed_through=len(scans) - len(harmonized),
        warned=sum(bool(scan.warnings) for scan in scans),
        methods=methods(harmonized, cards) if harmonized else "",
        edit_colours=edit_ramp(),
    )
