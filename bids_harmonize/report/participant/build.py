"""The page about one participant, and the figures that it needs.

The page, ``sub-<label>.html``, is made anew from all that lies in the participant's folder. The figures, in
``sub-<label>/figures``, are drawn when a scan is harmonized, while its images are in memory; the page draws
those that are missing or out of date, from the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from bids_harmonize.bids.output_paths import check_inside, report_path, transform_path
from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.files.atomic import update_text
from bids_harmonize.files.checksum import file_sha256, options_hash
from bids_harmonize.imaging.loaded_scan import LoadedScan, load_scan
from bids_harmonize.measures.histogram import ReferenceIntensities
from bids_harmonize.model.card import ModelCard
from bids_harmonize.report.components.thumbnails import figure_pattern
from bids_harmonize.report.participant.figures import draw_figures
from bids_harmonize.report.participant.manifest import FigureInputs, FigureManifest
from bids_harmonize.report.participant.page import ScanSection, participant_page
from bids_harmonize.results.reading import Result, read_result, sidecars_of
from bids_harmonize.version import version


def write_participant_report(
    derivatives: Path, label: str, dataset: Path, cards: Mapping[str, ModelCard]
) -> Path:
    """Write ``sub-<label>.html`` and the figures that it lacks.

    Parameters
    ----------
    derivatives
        The folder of the outputs.
    label
        The participant's, without ``sub-``; there must be derivatives.
    dataset
        The source dataset, for the images before.
    cards
        Model cards by the SHA-256 of their weights.

    Raises
    ------
    BadData
        A sidecar is damaged or another program's.
    CannotCreate, InputOutputError
        As `check_inside` and `write_text` do.
    """
    path = report_path(derivatives, label)
    check_inside(derivatives / f"sub-{label}" / "figures", derivatives)
    seen: dict[Path, tuple[int, int]] = {}
    # Another process may meanwhile harmonize a scan of the same participant, and write the page before this
    # process does.
    while (present := _versions(derivatives, label)) != seen:
        seen = present
        try:
            shown = [_shown(read_result(sidecar), derivatives, label, dataset, cards) for sidecar in seen]
            text = participant_page(label, shown, cards)
            update_text(path, text)
        except (BadData, NoInput, FileNotFoundError):
            if _versions(derivatives, label) == seen:
                raise
    return path


def draw_scan_figures(
    derivatives: Path,
    result: Result,
    cards: Mapping[str, ModelCard],
    *,
    before: LoadedScan | None,
    after: LoadedScan,
) -> None:
    """Draw the figures of a scan whose images are in memory, for the page about its participant.

    Parameters
    ----------
    derivatives
        The folder of the outputs.
    result
        The scan, as it was just written.
    cards
        Model cards by the SHA-256 of their weights.
    before, after
        The original, None if it was passed through, and the derivative.

    Raises
    ------
    BadData
        The saved curves cannot be read.
    CannotCreate, InputOutputError
        A figure cannot be written.
    """
    folder = derivatives / result.participant / "figures"
    check_inside(folder, derivatives)
    draw_figures(figure_inputs(result, folder, cards), before=before, after=after)


def _versions(derivatives: Path, label: str) -> dict[Path, tuple[int, int]]:
    """A participant's sidecars, each with what changes when it is written anew."""
    found = {}
    for path in sidecars_of(derivatives, label):
        with suppress(FileNotFoundError):
            state = path.stat()
            found[path] = (state.st_ino, state.st_mtime_ns)
    return found


def _shown(
    result: Result, derivatives: Path, label: str, dataset: Path, cards: Mapping[str, ModelCard]
) -> ScanSection:
    scan = figure_inputs(result, derivatives / f"sub-{label}" / "figures", cards)
    try:
        drawn, problem = _drawn(scan, result, dataset), ""
    except (BadData, NoInput) as error:
        drawn, problem = None, str(error)
    card = cards.get(str(result.provenance.model_sha256))
    return ScanSection(result=result, scan=scan, drawn=drawn, problem=problem, card=card)


def _drawn(scan: FigureInputs, result: Result, dataset: Path) -> FigureManifest:
    """The figures that are there, or new ones; what was drawn with the original stays when that is gone."""
    drawn = FigureManifest.read(scan)
    current = drawn is not None and drawn.key == scan.key
    if drawn is not None and current and not drawn.missing:
        return drawn
    original, missing = _original(result, dataset) if scan.harmonized else (None, "")
    return (
        drawn
        if drawn is not None and current and drawn.missing == missing
        else draw_figures(
            scan,
            before=None if original is None else load_scan(original),
            after=load_scan(scan.image),
            missing=missing,
        )
    )


def figure_inputs(result: Result, figures: Path, cards: Mapping[str, ModelCard]) -> FigureInputs:
    """What the figures of a scan, in the folder `figures`, are made from."""
    sidecar, provenance = result.sidecar, result.provenance
    image = sidecar.with_name(f"{sidecar.stem}.nii.gz")
    transform = transform_path(image)
    card = cards.get(str(provenance.model_sha256))
    made_from = {
        "Sidecar": file_sha256(sidecar),
        "Transform": transform.is_file(),
        "Reference": card.reference_intensities if card else None,
        "Version": version(),
    }
    return FigureInputs(
        key=options_hash(made_from),
        image=image,
        transform=transform if transform.is_file() else None,
        harmonized=result.harmonized,
        gain=provenance.edit.gain.median,
        reference=_reference(card),
        figures=figure_pattern(sidecar, figures),
    )


def _reference(card: ModelCard | None) -> ReferenceIntensities | None:
    """What a model card says of its reference group; None if it says nothing or is damaged there."""
    if card is None or card.reference_intensities is None:
        return None
    try:
        return ReferenceIntensities.of_card(card.reference_intensities)
    except (LookupError, TypeError, ValueError, OverflowError):
        return None


def _original(result: Result, dataset: Path) -> tuple[Path | None, str]:
    """The image that a derivative was made from, or why it cannot be shown."""
    sources = result.sources or [""]
    relative = unquote(sources[0].split(":", 2)[-1])
    path = dataset / relative
    # A derivative may come from anywhere, and what its sidecar names would be shown.
    if ".." in path.relative_to(dataset.anchor).parts or not path.is_relative_to(dataset):
        return None, f"The original, {relative}, would lie outside of {dataset}, so it is not shown."
    if not path.is_file():
        return (
            None,
            f"The original, {relative}, is not in {dataset} any more, so the image before is not shown.",
        )
    if file_sha256(path) != result.provenance.input_sha256:
        return None, f"The original, {relative}, has changed since; harmonize it again to see it here."
    return path, ""
