"""The metadata of the phantom: its description, and the sidecars of its runs in the units of BIDS."""

from __future__ import annotations

from typing import Any

from bids_harmonize.phantom.sites import PhantomScan
from bids_harmonize.phantom.space import Grid
from bids_harmonize.simulation.protocols import SequenceName
from bids_harmonize.version import BIDS_VERSION

# A change of what is drawn must change this, so that an older phantom is refused and not half overwritten.
VERSION = "1.0.0"


README = """# Digital multi-site head phantom

No person was scanned. Every participant is a drawn head with an anatomy of its own; every site scans its
participants with its own field strength, sequence, timing, voxel grid, receiver gain, shading and noise.
The signals follow the equations of the spin echo, the spoiled gradient echo and the inversion-prepared
gradient echo, with the times given in the sidecars. The file `dataset_description.json` holds the seed and
the numbers of sites and people from which `python -m bids_harmonize.phantom` writes the same dataset again.
"""

PARTICIPANTS_JSON = {
    "site": {"Description": "Site at which the participant was scanned"},
    "age": {"Description": "Age of the participant, drawn at random", "Units": "year"},
}


# At the root of the dataset, so that every run inherits it; the BIDS validator recommends each field.
COMMON_SIDECAR: dict[str, Any] = {
    "BodyPart": "HEAD",
    "Modality": "MR",
    "InstitutionAddress": "Nowhere",
    "InstitutionalDepartmentName": "Digital phantoms",
    "SoftwareVersions": VERSION,
    "ReceiveCoilName": "None",
    "ReceiveCoilActiveElements": "None",
    "MatrixCoilMode": "None",
    "CoilCombinationMethod": "None",
    "NonlinearGradientCorrection": False,
    "PulseSequenceDetails": "Simulated from its signal equation",
    "DwellTime": 1e-05,
}

_SEQUENCE_FIELDS: dict[SequenceName, dict[str, Any]] = {
    "spin echo": {"PulseSequenceType": "Spin Echo", "ScanningSequence": "SE", "SequenceVariant": "SK"},
    "spoiled gradient echo": {
        "PulseSequenceType": "Spoiled Gradient Echo",
        "ScanningSequence": "GR",
        "SequenceVariant": ["SP", "OSP"],
    },
    "MPRAGE": {
        "PulseSequenceType": "MPRAGE",
        "ScanningSequence": ["GR", "IR"],
        "SequenceVariant": ["SK", "SP", "MP"],
    },
}


def dataset_description(seed: int, sites: int, people_per_site: int) -> dict[str, Any]:
    """The content of ``dataset_description.json``; ``Phantom`` tells one phantom from another."""
    return {
        "Name": "Digital multi-site head phantom",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "raw",
        "License": "CC0",
        # The validator warns where a raw dataset leaves these two out.
        "HEDVersion": "8.3.0",
        "SourceDatasets": [],
        "Authors": ["The bids-harmonize developers", "The bids-harmonize phantom"],
        "GeneratedBy": [{"Name": "bids_harmonize.phantom", "Version": VERSION}],
        "Phantom": {"Version": VERSION, "Seed": seed, "Sites": sites, "PeoplePerSite": people_per_site},
    }


def sidecar(run: PhantomScan) -> dict[str, Any]:
    """Acquisition metadata of a run in the units of BIDS, seconds and degrees."""
    protocol = run.protocol
    inversion = {"InversionTime": _seconds(protocol.ti)} if protocol.sequence == "MPRAGE" else {}
    return {
        **_scanner_fields(run),
        "MagneticFieldStrength": protocol.field_strength,
        **_SEQUENCE_FIELDS[protocol.sequence],
        "SequenceName": protocol.sequence,
        "RepetitionTime": _seconds(protocol.tr),
        "EchoTime": _seconds(protocol.te),
        **inversion,
        "FlipAngle": protocol.flip_angle,
        **_slice_fields(run.grid, protocol.tr),
    }


def _scanner_fields(run: PhantomScan) -> dict[str, str]:
    letter = chr(ord("A") + (int(run.site.removeprefix("site")) - 1) % 26)
    return {
        "Manufacturer": f"Phantom {letter}",
        "ManufacturersModelName": f"Digital head {run.protocol.field_strength:g}T",
        "DeviceSerialNumber": run.site,
        "StationName": run.site,
        "InstitutionName": run.site,
    }


def _slice_fields(grid: Grid, tr: float) -> dict[str, Any]:
    """Thick slices are acquired one by one, odd ones first; anything else is a volume."""
    if grid.zooms[2] < 4:
        return {"MRAcquisitionType": "3D"}
    count = grid.shape[2]
    order = [*range(0, count, 2), *range(1, count, 2)]
    timing = [_seconds(order.index(slice_) * tr / count) for slice_ in range(count)]
    return {"MRAcquisitionType": "2D", "SliceThickness": grid.zooms[2], "SliceTiming": timing}


def _seconds(milliseconds: float) -> float:
    return round(milliseconds / 1000, 6)
