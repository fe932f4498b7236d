"""All figures of one scan: slices before and after, the edit, tone curves, histograms.

Each is a file of its own, with one more that says what was drawn, so that a later run draws only what is out
of date.
"""

from __future__ import annotations

from bids_harmonize.files.atomic import write_json
from bids_harmonize.imaging.loaded_scan import LoadedScan
from bids_harmonize.report.participant.edit_map import write_edit_maps
from bids_harmonize.report.participant.histograms import write_histograms
from bids_harmonize.report.participant.image_view import ImageView
from bids_harmonize.report.participant.manifest import (
    CURVES,
    EDIT,
    HISTOGRAM,
    FigureInputs,
    FigureManifest,
)
from bids_harmonize.report.participant.slices import planes_through_tissue, write_slices, write_thumbnail
from bids_harmonize.report.participant.tone_curves import write_tone_curves


def draw_figures(
    scan: FigureInputs, before: LoadedScan | None, after: LoadedScan, missing: str = ""
) -> FigureManifest:
    """Draw all figures of a scan that can be drawn, and write down which.

    Parameters
    ----------
    before
        The image that the derivative was made from; None if that was passed through, or if it is not there,
        and then `missing` says why.
    after
        The derivative.

    Raises
    ------
    BadData
        The images do not fit each other, or the saved curves cannot be read.
    CannotCreate, InputOutputError
        A figure cannot be written.
    """
    view = ImageView.of_scan(after)
    planes = planes_through_tissue(view)
    drawings, edit_limit, apart = list[str](), None, dict[str, float]()
    if scan.harmonized:
        original = None if before is None else view.of_original(before)
        pictures = write_slices(scan, planes, original, view)
        write_thumbnail(scan, original, view)
        if original is not None:
            edit_limit = write_edit_maps(scan, planes, original, view)
            pictures.append(EDIT)
        if write_tone_curves(scan, original, view):
            drawings.append(CURVES)
        apart = write_histograms(scan, original, view)
        drawings.append(HISTOGRAM)
    else:
        pictures = write_slices(scan, planes, view, None)
        write_thumbnail(scan, view, None)
    drawn = FigureManifest(
        key=scan.key,
        missing=missing,
        pictures=pictures,
        drawings=drawings,
        planes=planes,
        oriented=any(int(after.image.header[code]) for code in ("qform_code", "sform_code")),
        edit_limit=edit_limit,
        from_transform=scan.transform is not None,
        apart=apart,
        voxels=list(view.volume.shape),
        zooms=list(view.zooms),
    )
    # The manifest is written last: figures without it are drawn again.
    write_json(scan.manifest, drawn.to_json())
    return drawn
