"""The page about one person, and the figures that it needs.

The page, ``sub-<label>.html``, is made anew from all that lies in the person's folder; the figures, in
``sub-<label>/figures``, only where they are missing or out of date.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from bids_harmonize.bids.atomic import update_text
from bids_harmonize.bids.outputs import check_inside, report_path, transform_path
from bids_harmonize.bids.resume import file_sha256, options_hash
from bids_harmonize.bids.runs import HARMONIZED, UNHARMONIZED, natural_key
from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.intensities import ReferenceIntensities
from bids_harmonize.report.participant_page import Shown, participant_page
from bids_harmonize.report.records import read_sidecar
from bids_harmonize.report.scan_figures import Drawn, Scan, draw
from bids_harmonize.version import version


def write_participant_report(
    derivatives: Path, label: str, dataset: Path, cards: Mapping[str, Mapping[str, Any]]
) -> Path:
    """Write ``sub-<label>.html`` and the figures that it lacks.

    Parameters
    ----------
    derivatives
        The folder of the outputs.
    label
        The person's, without ``sub-``; there must be derivatives.
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
    # Meanwhile another process may add a scan of the same person, and write its page before this one, or do
    # one again.
    while (there := _versions(derivatives, label)) != seen:
        seen = there
        try:
            shown = [_shown(sidecar, derivatives, label, dataset, cards) for sidecar in seen]
            text = participant_page(label, shown, cards)
            update_text(path, text)
        except (BadData, NoInput, FileNotFoundError):
            if _versions(derivatives, label) == seen:
                raise
    return path


def has_results(derivatives: Path, label: str) -> bool:
    """Whether there is anything to report of a person."""
    return bool(_sidecars(derivatives, label))


def people(derivatives: Path) -> list[str]:
    """Labels of those who have results, in natural order."""
    folders = sorted(derivatives.glob("sub-*/"), key=lambda path: natural_key(PurePosixPath(path.name)))
    labels = [path.name.removeprefix("sub-") for path in folders]
    return [label for label in labels if has_results(derivatives, label)]


def _sidecars(derivatives: Path, label: str) -> list[Path]:
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


def _versions(derivatives: Path, label: str) -> dict[Path, tuple[int, int]]:
    """A person's sidecars, each with what changes when it is written anew."""
    found = {}
    for path in _sidecars(derivatives, label):
        with suppress(FileNotFoundError):
            state = path.stat()
            found[path] = (state.st_ino, state.st_mtime_ns)
    return found


def _shown(
    sidecar: Path, derivatives: Path, label: str, dataset: Path, cards: Mapping[str, Mapping[str, Any]]
) -> Shown:
    content = read_sidecar(sidecar)
    scan = _scan(sidecar, content, derivatives / f"sub-{label}" / "figures", cards)
    try:
        drawn, problem = _drawn(scan, content, dataset), ""
    except (BadData, NoInput) as error:
        drawn, problem = None, str(error)
    return Shown(sidecar=sidecar, content=content, scan=scan, drawn=drawn, problem=problem)


def _drawn(scan: Scan, content: Mapping[str, Any], dataset: Path) -> Drawn:
    """The figures that are there, or new ones; what was drawn with the original stays when that is gone."""
    drawn = Drawn.read(scan)
    current = drawn is not None and drawn.key == scan.key
    if drawn is not None and current and not drawn.missing:
        return drawn
    original, missing = _original(content, dataset) if scan.harmonized else (None, "")
    return (
        drawn if drawn is not None and current and drawn.missing == missing else draw(scan, original, missing)
    )


def _scan(
    sidecar: Path, content: Mapping[str, Any], figures: Path, cards: Mapping[str, Mapping[str, Any]]
) -> Scan:
    image = sidecar.with_name(f"{sidecar.stem}.nii.gz")
    transform = transform_path(image)
    record = content["BidsHarmonize"]
    card = cards.get(str(record.get("ModelSHA256")), {})
    before, _, suffix = sidecar.stem.rsplit("_", 2)
    made_from = {
        "Sidecar": hashlib.sha256(sidecar.read_bytes()).hexdigest(),
        "Transform": transform.is_file(),
        "Reference": card.get("ReferenceIntensities"),
        "Version": version(),
    }
    return Scan(
        key=options_hash(made_from),
        image=image,
        transform=transform if transform.is_file() else None,
        harmonized=record.get("Harmonized") is not False,
        gain=record.get("Edit", {}).get("Gain", {}).get("Median"),
        reference=_reference(card),
        figures=f"{_literal(str(figures / before))}_desc-{{}}_{_literal(suffix)}",
    )


def _literal(text: str) -> str:
    """A text as part of a format string."""
    return text.replace("{", "{{").replace("}", "}}")


def _reference(card: Mapping[str, Any]) -> ReferenceIntensities | None:
    """What a model card says of its reference group; None if it is an older one, or damaged there."""
    try:
        return ReferenceIntensities.of_card(card["ReferenceIntensities"])
    except (LookupError, TypeError, ValueError, OverflowError):
        return None


def _original(content: Mapping[str, Any], dataset: Path) -> tuple[Path | None, str]:
    """The image that a derivative was made from, or why it cannot be shown."""
    sources = content.get("Sources") or [""]
    relative = unquote(str(sources[0]).split(":", 2)[-1])
    path = dataset / relative
    # A derivative may come from anywhere, and what its sidecar names would be shown.
    if ".." in path.relative_to(dataset.anchor).parts or not path.is_relative_to(dataset):
        return None, f"The original, {relative}, would lie outside of {dataset}, so it is not shown."
    if not path.is_file():
        return (
            None,
            f"The original, {relative}, is not in {dataset} any more, so the image before is not shown.",
        )
    if file_sha256(path) != content["BidsHarmonize"].get("InputSHA256"):
        return None, f"The original, {relative}, has changed since; harmonize it again to see it here."
    return path, ""
