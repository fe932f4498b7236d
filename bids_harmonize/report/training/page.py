"""The training of a model as one page: what it learned from, how good it is, and how to use it.

The page needs nothing but itself: pictures and curves are part of it.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from bids_harmonize.files.atomic import write_text
from bids_harmonize.imaging.body_part import shows_brain
from bids_harmonize.model.card_entries import StartingModel, TrainingData
from bids_harmonize.report.components.numbers import NONE, duration, join_values, whole_percent
from bids_harmonize.report.components.page import render_page
from bids_harmonize.report.components.pictures import data_uri, svg
from bids_harmonize.report.training.charts import learning_curves, learning_in_words
from bids_harmonize.report.training.examples import example
from bids_harmonize.report.training.reference_group import contact_sheet_png
from bids_harmonize.training.reference_group import ReferenceSelection
from bids_harmonize.training.run import TrainingRun

ALTERATIONS = {
    "Acquisition": "Contrast of another protocol (TR, TE, TI, flip angle, field), by the MR signal equations",
    "ToneCurve": "Another contrast: a random rising curve from old to new intensities",
    "LocalToneCurves": "Another contrast from place to place: two such curves, blended",
    "SurroundingGain": "Scalp, fat and neck brighter or darker than the brain",
    "RadialGain": "k-space: coarse structures stronger or weaker than fine ones",
    "CentrePerturbation": "k-space: random factors at the very centre, which shade the image",
    "MagnitudePower": "k-space: strong coefficients near the centre made stronger or weaker",
    "LowBandToneMapped": "k-space: the centre of the same scan in another contrast",
    "LowBandOtherScan": "k-space: the very centre of another scan of the group",
    "Apodization": "k-space: lower resolution, or an abrupt end, which rings",
    "Spikes": "k-space: spikes, which lay faint stripes over the image",
    "PhaseError": "k-space: phase that swings from line to line, which makes faint ghosts",
    "SmoothField": "Shading by receive coils",
    "Noise": "Noise of the scanner",
    "SkullStripped": "Nothing but the brain left",
    "Cropped": "A smaller field of view",
}
# Families whose numbers are drawn by another family.
DRAWN_BY = {"LocalToneCurves": "ToneCurve", "LowBandToneMapped": "LowBand", "LowBandOtherScan": "LowBand"}
SCHEDULE = {
    "steps": "Steps at most",
    "patience": "Checkpoints without progress after which training stops",
    "batch": "Pairs per step",
    "seed": "Seed of all random numbers",
    "learning_rate": "Learning rate, highest",
    "warmup": "Steps of rising learning rate",
    "smoothness": "Weight of the smoothness of curves in space",
    "bias": "Weight of mean errors",
    "locality": "Price of curves that depart from one curve times a gain",
    "average": "Share of the averaged weights that a step keeps",
}
# The contact sheet has at most this many rows, because browsers show no larger picture; the file beside the
# page has all.
MAX_ROWS = 40


def write_training_report(run: TrainingRun, folder: Path, sheet: bytes | None = None) -> Path:
    """Write ``report_<name>.html`` into the folder of the weights.

    Parameters
    ----------
    sheet
        The contact sheet of all candidates as `contact_sheet_png` gives it, if it was drawn before.

    Raises
    ------
    CannotCreate, InputOutputError
        As `write_text` does.
    """
    path = folder / f"report_{run.name}.html"
    write_text(path, _page(run, sheet))
    return path


def _page(run: TrainingRun, sheet: bytes | None) -> str:
    card, kept = run.card, run.kept_checkpoint
    scans = f"{card.modality} scans of the {card.body_parts[0].lower()}"
    held_out = {scan.name for scan in run.selection.held_out}
    return render_page(
        "training",
        title=f"Model for {scans}",
        scans=scans,
        run=run,
        card=card,
        data=card.data or TrainingData(),
        region="brain" if shows_brain(card.body_parts) else "middle of the field of view",
        quoted_weights=shlex.quote(f"{run.name}.safetensors"),
        kept_step=kept.step,
        curves=svg(learning_curves(run.history, kept), learning_in_words(run.history, kept)),
        examples=[example(pair, held_out=pair.name in held_out) for pair in run.examples],
        contact_sheet=_contact_sheet(run.selection, run.name, sheet),
        max_rows=MAX_ROWS,
        alteration_labels=ALTERATIONS,
        alteration_rows=_alteration_rows(run),
        setting_rows=_setting_rows(run),
    )


def _contact_sheet(selection: ReferenceSelection, name: str, sheet: bytes | None) -> str:
    if sheet is None or len(selection.ranking) > MAX_ROWS:
        best = replace(selection, ranking=selection.ranking[:MAX_ROWS])
        sheet = contact_sheet_png(best, name)
    return data_uri(sheet)


def _alteration_rows(run: TrainingRun) -> list[tuple[str, str, str]]:
    """What is drawn, how often and how much, the most frequent first."""
    return [
        (
            ALTERATIONS.get(family, family),
            whole_percent(share),
            run.parameters.get(DRAWN_BY.get(family, family)) or NONE,
        )
        for family, share in sorted(run.recipe.frequencies.items(), key=lambda item: -item[1])
        if share > 0
    ]


def _setting_rows(run: TrainingRun) -> list[tuple[str, str]]:
    card, data, schedule = run.card, run.card.data or TrainingData(), run.schedule.to_json()
    rows = [
        ("Steps done", str(card.steps)),
        ("Duration", duration(card.duration_seconds or 0)),
        ("Machine", card.hardware or ""),
        ("bids-harmonize", card.version or ""),
        ("Created", card.created or ""),
        *((label, str(schedule[key])) for key, label in SCHEDULE.items() if schedule.get(key) is not None),
        ("Started from", _start(card.started_from)),
        ("Dataset", data.name or ""),
        ("Licence of the dataset", data.license or ""),
        ("Its authors", join_values(data.authors)),
        ("Its DOI", data.dataset_doi or ""),
        ("Its references", join_values(data.references_and_links)),
        ("SHA-256 of the weights", card.sha256),
    ]
    return [row for row in rows if row[1]]


def _start(model: StartingModel | None) -> str:
    if model is None:
        return "random weights"
    seconds = model.duration_seconds
    took = "" if seconds is None else f", trained for {duration(seconds)}"
    return f"the model with SHA-256 {model.sha256}{took}"
