"""What harmonizing a scan by itself does to it as a whole: pools are formed of these curves."""

from __future__ import annotations

from nibabel.nifti1 import Nifti1Image

from bids_harmonize.bids.input_metadata import inherited_metadata
from bids_harmonize.bids.output_paths import sidecar_path
from bids_harmonize.bids.pools import Acquired
from bids_harmonize.bids.run import Run
from bids_harmonize.commands.scan_plan import ScanPlan
from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.files.json_object import read_object
from bids_harmonize.imaging.brain import NoBrain
from bids_harmonize.imaging.loaded_scan import LoadedScan, load_scan
from bids_harmonize.imaging.masks import head_mask
from bids_harmonize.imaging.nifti import open_image, zooms
from bids_harmonize.measures.overall_curve import OverallCurve
from bids_harmonize.model.harmonizer import Harmonized, Model
from bids_harmonize.results.pool import Measured
from bids_harmonize.results.provenance import Provenance, provenance_of


def measure_own(plan: ScanPlan[Model], run: Run) -> Measured | None:
    """Find the own curve of a run, or read it if it was harmonized before; None if it can be in no pool."""
    before = _recorded(plan)
    if before is not None:
        own, sizes = before.overall_curve, before.voxel_sizes or voxel_sizes(open_image(run.path))
    else:
        scan = load_scan(run.path)
        harmonized = plan.model.harmonize_loaded(scan)
        if harmonized.out_of_distribution and plan.options.out_of_distribution != "harmonize":
            return None
        own, sizes = own_curve(scan, harmonized), voxel_sizes(scan.image)
    return Measured(
        acquired=Acquired(path=run.relative, metadata=inherited_metadata(plan.metadata), zooms=sizes),
        suffix=plan.suffix,
        model=plan.model.name,
        model_sha256=plan.model.sha256,
        own=own,
    )


def voxel_sizes(image: Nifti1Image) -> list[float]:
    """Voxel size in mm, as sidecars have it."""
    return [round(size, 4) for size in zooms(image)]


def _recorded(plan: ScanPlan[Model]) -> Provenance | None:
    """What an earlier run recorded of the same scan and model, if it did."""
    sidecar = sidecar_path(plan.output)
    if plan.options.force or not sidecar.is_file():
        return None
    try:
        provenance = provenance_of(sidecar, read_object(sidecar))
    except (BadData, NoInput):
        return None
    same = (provenance.input_sha256, provenance.model_sha256) == (plan.input_sha256, plan.model.sha256)
    return provenance if same and provenance.overall_curve.known else None


def own_curve(scan: LoadedScan, harmonized: Harmonized) -> OverallCurve:
    """The overall curve of an edit: through the tissues of the brain, or else of all tissue's voxels."""
    brain = harmonized.brain
    before, after = scan.block_means, harmonized.block_means
    if not isinstance(brain, NoBrain):
        # Without the field that `Harmonized.sharing` takes off.
        levels = [brain.thick.levels(volume) for volume in (before, after)]
        curve = OverallCurve.of_levels(*levels)
        if curve.known:
            return curve
    return OverallCurve.of(before, after, head_mask(before, scan.scale))
