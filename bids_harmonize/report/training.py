"""The training of a model as one page: what it learned from, how good it is, and how to use it.

The page needs nothing but itself: pictures and curves are part of it.
"""

from __future__ import annotations

import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_harmonize.anatomy import Mask, Volume, slice_axis
from bids_harmonize.bids.atomic import write_text
from bids_harmonize.metrics import agreement_db
from bids_harmonize.quality import in_digits
from bids_harmonize.reference import HEADS, Choice
from bids_harmonize.report.page import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    SPACE,
    count,
    embedded,
    grey_png,
    listed,
    page,
    paragraph,
    plain_axes,
    section,
    svg,
    table,
)
from bids_harmonize.report.reference_group import BRIGHTEST, contact_sheet
from bids_harmonize.training import UNCHANGED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNALTERED, ALTERED, BEFORE = (
    "LeftOutUnalteredDecibel",
    "LeftOutAlteredDecibel",
    "LeftOutAlteredBeforeDecibel",
)
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
# Whose numbers are drawn by another family.
DRAWN_BY = {"LocalToneCurves": "ToneCurve", "LowBandToneMapped": "LowBand", "LowBandOtherScan": "LowBand"}
SCHEDULE = {
    "steps": "Steps at most",
    "patience": "Checkpoints without progress after which training stops",
    "batch": "Pairs per step",
    "seed": "Seed of all random numbers",
    "learning_rate": "Learning rate, highest",
    "warmup": "Steps of rising learning rate",
    "smoothness": "Weight of the smoothness of curves in space",
    "average": "Share of the averaged weights that a step keeps",
}
# More would make a page that no browser shows; the file beside it has all.
MOST_ROWS = 40
# Inches; text that is still read on a phone's width.
CURVES_WIDTH, PANEL_HEIGHT = 5.0, 2.1

STYLE = """
.tiles .model b { color: var(--blue); }
.triple { display: grid; grid-template-columns: repeat(3, 1fr); gap: .4rem; max-width: 44rem; }
.triple b { display: block; }
.triple img { width: 100%; display: block; background: #000; }
.sheet { min-width: 50rem; width: 100%; display: block; }
@media print { .sheet { min-width: 0; width: auto; max-width: 100%; max-height: 24cm; } }
"""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A pair to show: a scan altered, what the model makes of it, and the original.

    Attributes
    ----------
    name
        Of the scan.
    altered, output, original
        Of one shape, 2-D or 3-D (x, y, z), not negative; `altered` in any unit, the others in one.
    region
        Where they are compared, as in training: the brain of a head.
    zooms
        Voxel size in mm, one per axis.
    alterations
        Families by which it was altered, as the model card names them, or in words; empty if not told.
    """

    name: str
    altered: Volume
    output: Volume
    original: Volume
    region: Mask
    zooms: tuple[float, ...]
    alterations: Sequence[str] = ()


def write_training_report(
    folder: Path, name: str, card: Mapping[str, Any], choice: Choice, shown: Sequence[Shown]
) -> Path:
    """Write ``report_<name>.html``.

    Parameters
    ----------
    folder
        Where the weights, ``<name>.safetensors``, lie as well.
    name
        Of the weight file, without extension.
    card
        The model card.
    choice
        The reference group and those left out.
    shown
        Pairs to show as pictures; there may be none.

    Raises
    ------
    CannotCreate, InputOutputError
        As `write_text` does.
    """
    path = folder / f"report_{name}.html"
    write_text(path, _page(name, card, choice, shown))
    return path


def _page(name: str, card: Mapping[str, Any], choice: Choice, shown: Sequence[Shown]) -> str:
    title = f"Model for {_scans(card)}"
    parts = [
        f"<header><h1>{escape(title)}</h1>",
        paragraph(f"Training report, {card['Created']}, bids-harmonize {card['Version']}", "faint"),
        _what(card),
        "</header>",
        section("How good it is", _how_good(card)),
        section("How to use it", _how_to_use(name, card)),
        section("How it learned", _how_it_learned(card)),
        section("What it does, in pictures", _pictures(shown, card)),
        section("Who is in the reference group, and why", _group(choice, name)),
        section("By what the scans were altered", _alterations(card)),
        section("Settings, machine, versions", _settings(card)),
        section("Known limits", _limits(card)),
        section("Words used here", _words(card)),
    ]
    return page(title, parts, style=STYLE)


# --- What, how good, how to use ---------------------------------------------------------------------------


def _what(card: Mapping[str, Any]) -> str:
    data = card["Data"]
    group = count(len(data["ReferenceGroup"]), "scan")
    told = (
        f"This model gives {_scans(card)} from other scanners and protocols the intensities of a reference "
        f"group: {group} of the dataset “{data.get('Name', 'without a name')}” "
        f"(licence: {data.get('License') or 'not stated'}). It changes how bright tissues are, not where "
        "they are."
    )
    return paragraph(told, "lead") + paragraph(f"Unit of its outputs: {card['OutputScale']['Description']}.")


def _how_good(card: Mapping[str, Any]) -> str:
    if not card["Figures"]:
        return _not_measured(len(card["Data"]["ReferenceGroup"]))
    before, altered, unaltered = (card["Figures"][key] for key in (BEFORE, ALTERED, UNALTERED))
    left_out = count(len(card["Data"]["LeftOut"]), "scan")
    where = _region(card)
    told = (
        f"Measured on {left_out} left out of the training. Altered at random and brought to the overall "
        f"brightness of the original, the {where} differs from it by {_percent(before)} of the range of its "
        f"intensities, typically; after this model, by {_percent(altered)}. What is given to the model "
        f"unaltered comes back with a difference of {_percent(unaltered)}."
    )
    tiles = [
        ("", "Altered, only rescaled", before),
        ("model", "Altered, harmonized", altered),
        ("model", "Unaltered, harmonized", unaltered),
    ]
    boxes = "".join(
        f'<div class="{kind}">{escape(label)}<b>{_decibel(value)}</b>'
        f"<small>difference of {_percent(value)}</small></div>"
        for kind, label, value in tiles
    )
    more = "Agreement with the original, in decibel (dB): more is better; 6 dB more is half the difference."
    return "".join(
        [
            paragraph(told),
            f'<div class="tiles">{boxes}</div>',
            paragraph(more, "faint"),
            *(paragraph(text, "warning") for text in _warnings(card)),
        ]
    )


def _not_measured(scans: int) -> str:
    told = (
        f"How good this model is, is not known: all {count(scans, 'scan')} are in the reference group and "
        "nobody was left out, so there was no scan to measure it on that it had not learned from. To have it "
        "measured, train on more scans than --reference-size asks for, or with a smaller --reference-size; "
        "those beyond it are left out, to measure the model and to tell when to stop."
    )
    return paragraph(told, "warning")


def _warnings(card: Mapping[str, Any]) -> list[str]:
    """What must be known before the figures are believed, or the model used."""
    figures, data = card["Figures"], card["Data"]
    found = []
    if figures[ALTERED] <= figures[BEFORE]:
        found.append(
            "On the scans left out, this model does no better than bringing the median to the same value. Do "
            "not use it as it is: train for more steps, start from a bundled model (--model), or give a "
            "larger group."
        )
    if both := sorted(_people(data["LeftOut"]) & _people(data["ReferenceGroup"])):
        found.append(
            f"Not independent: other scans of {', '.join(both)} are in the reference group. The figures may "
            "be better than those of people whom the model has never seen."
        )
    return found


def _people(names: Iterable[str]) -> set[str]:
    """Subjects of BIDS file names."""
    return {name.split("_")[0] for name in names if name.startswith("sub-")}


def _how_to_use(name: str, card: Mapping[str, Any]) -> str:
    weights = shlex.quote(f"{name}.safetensors")
    parts = ", ".join(card["BodyParts"])
    commands = {
        "Installed": f"bids-harmonize BIDS_DIR OUTPUT_DIR participant --model path/to/{weights}",
        "In the container": "docker run --rm -v /path/to/dataset:/data:ro -v /path/to/output:/out "
        "-v /path/to/model:/model:ro bids/harmonize /data /out participant "
        f"--model /model/{weights}",
    }
    told = (
        f"Keep {name}.safetensors and {name}.json, its model card, in one folder. The model serves "
        f"{card['Modality']} scans whose sidecar names as BodyPart one of {parts}, or names none; all others "
        "are passed over. Look at the warnings in the sidecars of the outputs: they name scans unlike all "
        "that the model was trained on."
    )
    return "".join(
        f"{paragraph(where, 'faint')}<pre><code>{escape(command)}</code></pre>"
        for where, command in commands.items()
    ) + paragraph(told)


# --- How it learned ---------------------------------------------------------------------------------------


def _how_it_learned(card: Mapping[str, Any]) -> str:
    history, kept = card["History"], _kept(card)
    told = _stopping(card, int(kept["Step"]))
    first, last = history[0], history[-1]
    described = f"Loss from {first['Loss']:.3g} at step {first['Step']} to {last['Loss']:.3g} at the end"
    caption = "Loss: what training makes small, on scans of the group."
    if card["Figures"]:
        described += f"; altered scans left out from {_decibel(first[ALTERED])} to {_decibel(kept[ALTERED])}"
        caption += " Agreement: with their originals, of the scans left out."
    described += f"; weights of step {kept['Step']} kept."
    caption += " The vertical line marks the checkpoint whose weights were kept."
    return (
        paragraph(told)
        + f'<figure class="curves">{svg(_curves(history, kept), described)}'
        + f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _kept(card: Mapping[str, Any]) -> Mapping[str, float]:
    """The checkpoint whose weights the model has: with patience, that of the model's own figures."""
    history, figures = card["History"], card["Figures"]
    if card["Schedule"]["patience"] is None or not figures:
        return history[-1]
    return min(history, key=lambda entry: sum(abs(entry[key] - figures[key]) for key in (UNALTERED, ALTERED)))


def _stopping(card: Mapping[str, Any], kept: int) -> str:
    steps, schedule = card["Steps"], card["Schedule"]
    took = f"in {_duration(card['DurationSeconds'])}"
    if schedule["patience"] is None:
        why = "" if card["Figures"] else " Nobody was left out, so nothing could tell when to stop."
        return f"{steps} steps {took}, as many as asked for; the last weights were kept.{why}"
    if steps < schedule["steps"]:
        return (
            f"Stopped after {steps} of at most {schedule['steps']} steps, {took}: the last "
            f"{count(schedule['patience'], 'checkpoint')} brought the scans left out no nearer to "
            f"themselves. The weights of step {kept}, the best, were kept."
        )
    best = f"The weights of step {kept}, the best on the scans left out, were kept."
    return f"All {steps} steps, {took}. {best}"


def _curves(history: Sequence[Mapping[str, float]], kept: Mapping[str, float]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    measured = ALTERED in history[0]
    panels = 2 if measured else 1
    figure = Figure(figsize=(CURVES_WIDTH, 0.5 + panels * PANEL_HEIGHT), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    for panel in axes:
        panel.axvline(kept["Step"], color=INK, linewidth=1, linestyle=(0, (2, 2)))
        plain_axes(panel)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    _line(axes[0], history, "Loss", INK, "o")
    axes[0].set_ylabel("loss", color=INK, size=9)
    axes[0].set_ylim(bottom=0)
    place = "right" if kept["Step"] > np.mean([history[0]["Step"], history[-1]["Step"]]) else "left"
    axes[0].annotate(
        "kept " if place == "right" else " kept",
        (kept["Step"], 1),
        xycoords=("data", "axes fraction"),
        ha=place,
        va="top",
        color=INK,
        size=9,
    )
    if measured:
        _agreements(axes[1], history)
    axes[-1].set_xlabel("step", color=INK, size=9)
    return figure


def _agreements(panel: Axes, history: Sequence[Mapping[str, float]]) -> None:
    _line(panel, history, UNALTERED, ORANGE, "s", "unaltered, harmonized")
    _line(panel, history, ALTERED, BLUE, "o", "altered, harmonized")
    panel.axhline(history[0][BEFORE], color=FAINT, linewidth=1.2, linestyle="--", label="altered, rescaled")
    panel.set_ylabel("agreement, dB", color=INK, size=9)
    panel.margins(y=0.12)
    panel.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, fontsize=8, labelcolor=INK
    )


def _line(
    panel: Axes,
    history: Sequence[Mapping[str, float]],
    key: str,
    colour: str,
    marker: str,
    label: str | None = None,
) -> None:
    steps, values = ([entry[name] for entry in history] for name in ("Step", key))
    panel.plot(steps, values, color=colour, marker=marker, markersize=3.5, linewidth=1.5, label=label)


# --- Pictures ---------------------------------------------------------------------------------------------


def _pictures(shown: Sequence[Shown], card: Mapping[str, Any]) -> str:
    if not shown:
        return ""
    left_out = set(card["Data"]["LeftOut"])
    told = (
        "One slice of each scan, at the resolution of training. The three pictures have one window, set by "
        "the original; the altered scan is shown at the original's overall brightness. Left and right may be "
        f"exchanged, as in training. Figures: agreement with the original in the {_region(card)}."
    )
    return paragraph(told) + "".join(_triple(pair, pair.name in left_out) for pair in shown)


def _triple(pair: Shown, left_out: bool) -> str:
    original = pair.original[pair.region]
    factor = np.float32(np.median(original) / max(float(np.median(pair.altered[pair.region])), 1e-6))
    rescaled = pair.altered * factor
    window = float(np.quantile(original, BRIGHTEST))
    columns = [
        ("Altered", rescaled, _decibel(agreement_db(rescaled[pair.region], original))),
        ("Harmonized", pair.output, _decibel(agreement_db(pair.output[pair.region], original))),
        ("Original", pair.original, ""),
    ]
    pictures = "".join(
        f"<div>{_picture(_plane(volume, pair), window, f'{pair.name}, {label.lower()}')}"
        f"<small><b>{label}</b> {escape(figure)}</small></div>"
        for label, volume, figure in columns
    )
    names = "; ".join(ALTERATIONS.get(name, name) for name in pair.alterations)
    role = "left out of the training" if left_out else "in the reference group"
    caption = f"{pair.name}, {role}." + (f" Altered by: {names}." if names else "")
    return f'<figure><div class="triple">{pictures}</div><figcaption>{escape(caption)}</figcaption></figure>'


def _plane(volume: Volume, pair: Shown) -> tuple[Volume, float]:
    """The slice that shows most of the region, and its width over its height."""
    if volume.ndim == 2:
        plane, zooms = volume, pair.zooms
    else:
        axis = slice_axis(pair.zooms)
        place = int(np.argmax(pair.region.sum(axis=tuple({0, 1, 2} - {axis}))))
        plane = np.take(volume, place, axis=axis)
        zooms = pair.zooms[:axis] + pair.zooms[axis + 1 :]
    across, upwards = (n * zoom for n, zoom in zip(plane.shape, zooms, strict=True))
    return plane, across / upwards


def _picture(plane: tuple[Volume, float], window: float, described: str) -> str:
    values, ratio = plane
    return embedded(grey_png(values, window), described, f'style="aspect-ratio: {ratio:.4f}"')


# --- Who, by what, with what ------------------------------------------------------------------------------


def _group(choice: Choice, name: str) -> str:
    told = (
        f"{count(len(choice.group), 'scan')} in the group, {len(choice.left_out) or 'nobody'} left out. "
        "Candidates are judged by two things: the quality of the scan (noise, contrast, ghosts, shading) and "
        "the likeness of its intensities to the others'. Score: the sum of both, in robust standard "
        "deviations; the scan with the lowest left, again and again, until the group had its size. Level: "
        "the typical intensity in the scanner's own unit."
    )
    sheet = f"reference-group_{name}"
    first = replace(choice, verdicts=choice.verdicts[:MOST_ROWS])
    file = io.BytesIO()
    contact_sheet(first, name).savefig(file, format="png")
    picture = embedded(file.getvalue(), "Three slices and the measures of each candidate", 'class="sheet"')
    rest = f"The best {MOST_ROWS} are shown; " if len(choice.verdicts) > MOST_ROWS else ""
    files = f"{rest}all figures are in {sheet}.tsv, their meaning is in {sheet}.json, both beside this page."
    return (
        paragraph(told)
        + f'<figure><div class="wide">{picture}</div>'
        + f"<figcaption>{escape(files[0].upper() + files[1:])}</figcaption></figure>"
        + _verdicts(choice)
    )


def _verdicts(choice: Choice) -> str:
    rows = [
        (
            str(one.rank),
            one.judgement.scan.name,
            "in" if one.chosen else "out",
            one.reason,
            f"{one.judgement.score:+.1f}",
            in_digits(one.judgement.scan.level),
        )
        for one in choice.verdicts
    ]
    return table(("Rank", "Scan", "Group", "Why", "Score", "Level"), rows, whole={0, 1, 2, 4, 5})


def _alterations(card: Mapping[str, Any]) -> str:
    recipe = card["Alterations"]
    told = (
        "The network sees altered scans and learns to bring back the originals. Alterations are drawn at "
        f"random, several for one scan. {_share(recipe['unaltered'])} of the pairs are not altered, so that "
        f"good scans are left alone; {_share(recipe['mild'])} are altered at "
        f"{_share(recipe['mild_strength'])} of the strength. The overall brightness varies by "
        f"{_share(recipe['scale_jitter'])} (standard deviation)."
    )
    if heads := card.get("SimulatedHeads"):
        told += (
            f" {_share(recipe['simulated'])} of the pairs are simulated from "
            f"{count(len(heads), 'label map')} ({', '.join(heads)}): signal equations give both the altered "
            "contrast and the group's."
        )
    parameters = recipe["Parameters"]
    rows = [
        (ALTERATIONS.get(family, family), _share(share), parameters.get(DRAWN_BY.get(family, family)) or "–")
        for family, share in sorted(recipe["frequencies"].items(), key=lambda item: -item[1])
        if share > 0
    ]
    return paragraph(told) + table(("Alteration", "How often", "How much"), rows, whole={1})


def _settings(card: Mapping[str, Any]) -> str:
    data, schedule = card["Data"], card["Schedule"]
    rows = [
        ("Steps done", str(card["Steps"])),
        ("Duration", _duration(card["DurationSeconds"])),
        ("Machine", card["Hardware"]),
        ("bids-harmonize", card["Version"]),
        ("Created", card["Created"]),
        *((label, str(schedule[key])) for key, label in SCHEDULE.items() if schedule.get(key) is not None),
        ("Started from", _start(card.get("StartedFrom"))),
        ("Dataset", data.get("Name", "")),
        ("Licence of the dataset", data.get("License", "")),
        ("Its authors", listed(data.get("Authors"))),
        ("Its DOI", data.get("DatasetDOI", "")),
        ("Its references", listed(data.get("ReferencesAndLinks"))),
        ("SHA-256 of the weights", card.get("SHA256", "")),
    ]
    return table(("Setting", "Value"), [row for row in rows if row[1]])


def _start(model: Mapping[str, Any] | None) -> str:
    if model is None:
        return "random weights"
    took = f", trained for {_duration(model['DurationSeconds'])}" if "DurationSeconds" in model else ""
    return f"the model with SHA-256 {model['SHA256']}{took}"


def _limits(card: Mapping[str, Any]) -> str:
    limits = [
        f"It is meant for {_scans(card)}. Other contrasts and body parts come out wrong.",
        "It brightens and darkens, by rising curves: tissues whose order of brightness is reversed in a "
        "scan, such as grey and white matter of newborns, stay reversed.",
        "What no scan of the group shows, such as another age, a disease or contrast agent, was not "
        "measured. Compare such scans before and after by eye.",
        "Not a medical device: for research only.",
    ]
    if card["Figures"]:
        limits[2:2] = [
            "The figures above are of alterations of the kinds met in training. How well scans of a real "
            "second scanner agree afterwards, they do not tell.",
            f"They rest on {count(len(card['Data']['LeftOut']), 'scan')} that came last in the choice of "
            "the group, which is no random sample.",
        ]
        if card["Schedule"]["patience"] is not None:
            limits.insert(4, "The same scans told when to stop, so the figures are a little too good.")
    return "<ul>" + "".join(f"<li>{escape(limit)}</li>" for limit in limits) + "</ul>"


def _words(card: Mapping[str, Any]) -> str:
    words = {
        "Reference group": "The scans whose look all others are given. Everything is learned from them.",
        "Left out": "Candidates that are not in the group. The model learns nothing from them.",
        "Altered": "Changed at random as another scanner or protocol might, with the anatomy kept; the "
        "original is known, so the outcome can be measured exactly.",
        "Rescaled": f"Multiplied so that the median in the {_region(card)} is the original's: the plainest "
        "harmonization, and the least that a model must beat.",
        "Decibel (dB)": "The difference (root mean square) as a share of the range of intensities between "
        "the 1st and 99th percentile, as −20 log₁₀. 20 dB: 10 %; 26 dB: 5 %; 40 dB: 1 %.",
        "Step, checkpoint, loss": "In a step the network is corrected once, by a few pairs. At a checkpoint "
        "it is stored and measured. The loss is how far it is from the originals; less is better.",
        "k-space": "The frequencies of an image, in which a scanner measures it: the centre holds "
        "brightness, shading and coarse contrast, the rim holds fine detail.",
    }
    listed = "".join(f"<dt>{word}</dt><dd>{escape(text)}</dd>" for word, text in words.items())
    return f"<dl>{listed}</dl>"


# --- Pieces -----------------------------------------------------------------------------------------------


def _scans(card: Mapping[str, Any]) -> str:
    return f"{card['Modality']} scans of the {card['BodyParts'][0].lower()}"


def _region(card: Mapping[str, Any]) -> str:
    """Where a model of this body part is measured."""
    return "brain" if HEADS & set(card["BodyParts"]) else "middle of the field of view"


def _decibel(value: float) -> str:
    return f"{value:.1f}{SPACE}dB" if value < UNCHANGED else "identical"


def _share(value: float) -> str:
    return f"{100 * value:.0f}{SPACE}%"


def _percent(decibel: float) -> str:
    """The root-mean-square difference as a share of the range, which is what decibels stand for."""
    return f"{100 * 10 ** (-decibel / 20):.2g}{SPACE}%"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
