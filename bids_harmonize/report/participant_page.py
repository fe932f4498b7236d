"""One person's scans as HTML: before and after, what was done to them, and what to look at."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from bids_harmonize.report.methods import methods
from bids_harmonize.report.page import SPACE, count, listed, page, paragraph, section, table
from bids_harmonize.report.scan_figures import (
    AFTER,
    BEFORE,
    CURVES,
    EDIT,
    HISTOGRAM,
    Drawn,
    Plane,
    Scan,
    edit_ramp,
)
from bids_harmonize.version import version

# Letters at the left, right, upper and lower edge: the person's left is at the left (neurological).
EDGES = {"axial": "LRAP", "coronal": "LRSI", "sagittal": "PASI"}
PICTURES = {
    BEFORE: "Before",
    AFTER: "After",
    EDIT: "Edit map: gain relative to its median",
}
ACQUISITION = {
    "Manufacturer": "Manufacturer",
    "ManufacturersModelName": "Scanner",
    "MagneticFieldStrength": "Field, T",
    "RepetitionTime": "Repetition time, s",
    "EchoTime": "Echo time, s",
    "InversionTime": "Inversion time, s",
    "FlipAngle": "Flip angle, degrees",
}

STYLE = """
h3 { font-size: 1.05rem; margin: 1.75rem 0 .25rem; }
.scan { border-top: 1px solid var(--line); margin-top: 2.5rem; }
.planes { display: grid; gap: .75rem; align-items: start; margin: .75rem 0; }
.planes figure { margin: 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem; }
.shot { position: relative; background: #000; color: #fff; font-size: .85rem; line-height: 1; }
.shot img { display: block; width: 100%; height: 100%; }
.shot span { position: absolute; background: rgb(0 0 0 / .6); border-radius: .2rem; padding: .1rem .2rem; }
.shot .what { left: .4rem; top: .4rem; font-weight: 600; }
.after .what { left: auto; right: .4rem; }
.l { left: .3rem; top: 50%; } .r { right: .3rem; top: 50%; }
.t { top: .3rem; left: 53%; } .b { bottom: .3rem; left: 53%; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; }
.controls[hidden] { display: none; }
.controls label { display: flex; flex-wrap: wrap; flex: 1 1 16rem; gap: .6rem; align-items: center; }
.controls input { flex: 1 1 12rem; margin: 0; height: 1.75rem; accent-color: var(--blue); }
button { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--faint);
  border-radius: .4rem; padding: .3rem .8rem; min-height: 2rem; cursor: pointer; }
button[aria-pressed=true] { background: var(--ink); color: var(--paper); }
.ramp { height: .9rem; max-width: 24rem; border: 1px solid var(--line); print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
.ticks { display: flex; justify-content: space-between; max-width: 24rem; font-size: .85rem; }
.graphs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1rem; }
.graphs figure { margin: 0; }
details { margin: 1rem 0; }
summary { cursor: pointer; font-weight: 600; }
.text { white-space: pre-line; background: var(--panel); border-radius: .4rem; padding: .75rem .9rem;
  max-width: none; }
@media screen and (min-width: 44rem) {
  .js .planes, .single { grid-template-columns: var(--columns); } }
@media screen { .js .pair { display: block; position: relative; touch-action: pan-y; cursor: ew-resize; }
  .js .pair .before { position: absolute; inset: 0; z-index: 1;
    clip-path: inset(0 calc(100% - var(--cut)) 0 0); }
  .js .pair::after { content: ""; position: absolute; z-index: 2; top: 0; bottom: 0;
    left: calc(var(--cut) - 1px); width: 2px; background: #fff; opacity: .8; pointer-events: none; } }
@media print { .single { grid-template-columns: var(--columns); } .controls, button { display: none; }
  .shot { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""

SCRIPT = """
document.documentElement.classList.add('js');
for (const controls of document.querySelectorAll('.controls')) controls.hidden = false;
for (const box of document.querySelectorAll('.compare')) {
  const range = box.querySelector('input'), button = box.querySelector('button');
  let timer = 0;
  const cut = share => {
    range.value = share;
    box.style.setProperty('--cut', range.value + '%');
    range.setAttribute('aria-valuetext', range.value + ' % before, ' + (100 - range.value) + ' % after');
  };
  const alternate = on => {
    clearInterval(timer);
    timer = on ? setInterval(() => cut(range.value > 50 ? 0 : 100), 1000) : 0;
    if (on) cut(range.value > 50 ? 0 : 100);
    button.setAttribute('aria-pressed', on);
  };
  const drag = event => {
    if (event.type === 'pointermove' && !event.buttons) return;
    const frame = event.currentTarget.getBoundingClientRect();
    alternate(false);
    cut(100 * (event.clientX - frame.left) / frame.width);
  };
  range.addEventListener('input', () => { alternate(false); cut(range.value); });
  button.addEventListener('click', () => alternate(!timer));
  for (const pair of box.querySelectorAll('.pair')) {
    pair.addEventListener('pointerdown', drag);
    pair.addEventListener('pointermove', drag);
    pair.addEventListener('dragstart', event => event.preventDefault());
  }
  cut(50);
}
for (const button of document.querySelectorAll('[data-copies]')) {
  const told = document.getElementById(button.dataset.copies + '-told');
  button.addEventListener('click', () => {
    const selection = getSelection(), range = document.createRange();
    range.selectNodeContents(document.getElementById(button.dataset.copies));
    selection.removeAllRanges();
    selection.addRange(range);
    told.textContent = document.execCommand('copy') ? 'Copied.' : 'Selected; copy it with your keyboard.';
  });
}
"""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A scan on the page: its sidecar, and its figures or why there are none."""

    sidecar: Path
    content: Mapping[str, Any]
    scan: Scan
    drawn: Drawn | None
    problem: str

    @property
    def record(self) -> Mapping[str, Any]:
        """How it was made."""
        return self.content["BidsHarmonize"]

    @property
    def name(self) -> str:
        """The scan's own name."""
        before, _, suffix = self.sidecar.stem.rsplit("_", 2)
        return f"{before}_{suffix}"


def participant_page(label: str, shown: Sequence[Shown], cards: Mapping[str, Mapping[str, Any]]) -> str:
    """The page about a person.

    Parameters
    ----------
    label
        The person's, without ``sub-``.
    shown
        The scans, in the order of the page.
    cards
        Model cards by the SHA-256 of their weights.
    """
    title = f"Participant sub-{label}"
    harmonized = [one.record for one in shown if one.scan.harmonized]
    parts = [
        f"<header><h1>{escape(title)}</h1>",
        paragraph(f"Harmonization report, bids-harmonize {version()}", "faint"),
        paragraph(_in_short(shown), "lead"),
        _contents(shown),
        "</header>",
        *(_scan_section(one, cards) for one in shown),
        section("Methods, to paste into a paper", _methods(harmonized, cards) if harmonized else ""),
        section("Words used here", _words()),
    ]
    return page(title, parts, style=STYLE, script=SCRIPT)


def _in_short(shown: Sequence[Shown]) -> str:
    done = sum(one.scan.harmonized for one in shown)
    left = len(shown) - done
    warned = sum(bool(one.record.get("Warnings")) for one in shown)
    told = f"{count(len(shown), 'scan')}: {done} harmonized"
    told += f", {left} left as {'it was' if left == 1 else 'they were'}" if left else ""
    return f"{told}; {count(warned, 'scan') if warned else 'none'} with warnings."


def _contents(shown: Sequence[Shown]) -> str:
    rows = "".join(
        f'<li><a href="#{quote(one.name)}">{escape(one.name)}</a>: {escape(_state(one))}</li>'
        for one in shown
    )
    return f'<nav aria-label="Scans"><ul>{rows}</ul></nav>'


def _state(one: Shown) -> str:
    state = "harmonized" if one.scan.harmonized else "not harmonized, passed through unchanged"
    warnings = len(one.record.get("Warnings", []))
    return f"{state}, {count(warnings, 'warning')}" if warnings else state


def _scan_section(one: Shown, cards: Mapping[str, Mapping[str, Any]]) -> str:
    parts = [
        f'<section class="scan" id="{escape(one.name)}"><h2>{escape(one.name)}</h2>',
        *(_warning(warning, one.scan.harmonized) for warning in one.record.get("Warnings", [])),
        paragraph(f"No figures: {one.problem}", "warning") if one.problem else "",
        _what_was_done(one) if one.scan.harmonized else "",
        _figures(one, one.drawn) if one.drawn else "",
        _details(one, cards.get(str(one.record.get("ModelSHA256")), {})),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _warning(text: str, harmonized: bool) -> str:
    said = f"{text[:1].upper()}{text[1:]}."
    return paragraph(said if harmonized else f"Not harmonized: {text}. It is written as it was.", "warning")


def _what_was_done(one: Shown) -> str:
    """The sidecar's numbers, in words."""
    edit = one.record.get("Edit", {})
    told = [
        *_gain(edit.get("Gain", {}), one.record),
        *_order(edit.get("OrderViolations", {})),
        *_familiar(edit.get("DistanceToTrainingDistribution"), one.record.get("OutOfDistribution", {})),
    ]
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in told)}</ul>"


def _gain(gain: Mapping[str, float], record: Mapping[str, Any]) -> list[str]:
    if not {"Median", "Percentile1", "Percentile99", "Minimum", "Maximum"} <= set(gain):
        return []
    scale = (record.get("OutputScale") or {}).get("Description")
    low, high, darkest, brightest = (
        100 * (gain[name] - 1) for name in ("Percentile1", "Percentile99", "Minimum", "Maximum")
    )
    return [
        f"Overall, intensities were multiplied by {gain['Median']:.3g} (median of tissue)."
        + (f" Their unit now: {scale}." if scale else ""),
        f"Beside that, 98 % of tissue changed by {_percent(low)} to {_percent(high)}; the extremes are "
        f"{_percent(darkest)} and {_percent(brightest)}.",
    ]


def _order(order: Mapping[str, Any]) -> list[str]:
    pairs, edges = order.get("Pairs"), order.get("Edges")
    if pairs is None or not edges:
        return []
    if not pairs:
        return [
            f"At all of {edges:,} edges between neighbouring voxels, what was brighter is still brighter."
        ]
    return [
        f"At {pairs:,} of {edges:,} edges between neighbouring voxels ({1e6 * pairs / edges:.0f} in a "
        "million) the order of brightness was reversed."
    ]


def _familiar(distance: float | None, recognition: Mapping[str, Any]) -> list[str]:
    told = []
    if distance is not None:
        told.append(
            f"Its intensities lie {distance:.1f} standard deviations from those that the model was trained "
            "on; about 1 is typical."
        )
    if recognition.get("Checked") is False:
        told.append("Whether the model is meant for such a scan was not checked: its model card cannot tell.")
    elif recognition.get("Flagged") is False and {"Score", "Threshold"} <= set(recognition):
        told.append(
            f"The model is meant for such scans: {recognition['Score']:.2g} on a scale from 0 (familiar) to "
            f"1 (foreign), and up to {recognition['Threshold']:.2g} is familiar."
        )
    return told


def _percent(value: float) -> str:
    sign = "" if round(value) == 0 else "+" if value > 0 else "−"
    return f"{sign}{abs(value):.0f}{SPACE}%"


# --- Figures ----------------------------------------------------------------------------------------------


def _figures(one: Shown, drawn: Drawn) -> str:
    parts = [paragraph(drawn.missing, "warning") if drawn.missing else ""]
    if one.scan.harmonized and BEFORE in drawn.pictures:
        parts.append(_compared(one, drawn))
    else:
        parts.append(_single(one, drawn, drawn.pictures[0]))
    parts.append(paragraph(_orientation(drawn), "faint"))
    if EDIT in drawn.pictures:
        parts.append(_edit_map(one, drawn))
    if drawn.drawings:
        graphs = "".join(_graph(one, drawn, what) for what in drawn.drawings)
        parts.append(f'<div class="graphs">{graphs}</div>')
    return "\n".join(part for part in parts if part)


def _compared(one: Shown, drawn: Drawn) -> str:
    pairs = "".join(
        '<figure><div class="pair">'
        f"{_shot(one, BEFORE, plane)}{_shot(one, AFTER, plane)}</div>"
        f"{_which(plane)}</figure>"
        for plane in drawn.planes
    )
    return (
        "<h3>Before and after</h3>"
        + paragraph(
            "Each image in one window, from 0 to its own bright value (the 99th percentile of its "
            "foreground), so that contrast is compared and not overall brightness."
        )
        + '<div class="compare" style="--cut: 50%"><div class="controls" hidden>'
        "<label>Border between before and after "
        '<input type="range" min="0" max="100" value="50"></label>'
        f'<button type="button" aria-pressed="false">Alternate</button></div>'
        f'<div class="planes" style="{_columns(drawn.planes)}">{pairs}</div></div>'
    )


def _single(one: Shown, drawn: Drawn, what: str) -> str:
    title = PICTURES[what] if one.scan.harmonized else "The scan as it is"
    return f"<h3>{title}</h3>" + _row(one, drawn, what)


def _row(one: Shown, drawn: Drawn, what: str) -> str:
    figures = "".join(f"<figure>{_shot(one, what, plane)}{_which(plane)}</figure>" for plane in drawn.planes)
    return f'<div class="planes single" style="{_columns(drawn.planes)}">{figures}</div>'


def _shot(one: Shown, what: str, plane: Plane) -> str:
    """A slice with the letters of its sides."""
    # sub-<label>/figures/<name>, beside the page.
    source = quote("/".join(one.scan.picture(what, plane.name).parts[-3:]))
    sides = EDGES[plane.name]
    letters = "".join(
        f'<span class="{side}">{letter}</span>' for side, letter in zip("lrtb", sides, strict=True)
    )
    label = f'<span class="what">{PICTURES[what]}</span>' if what != EDIT and one.scan.harmonized else ""
    described = f"{one.name}, {PICTURES[what].lower()}: {plane.name} slice, {sides[0]} at the left"
    return (
        f'<div class="shot {what}" style="aspect-ratio: {_ratio(plane)}">'
        f'<img src="{escape(source)}" alt="{escape(described)}">'
        f'<div aria-hidden="true">{label}{letters}</div></div>'
    )


def _ratio(plane: Plane) -> str:
    return f"{plane.across / plane.upwards:.4f}"


def _which(plane: Plane) -> str:
    return f"<figcaption>{plane.name.capitalize()}, slice {plane.number} of {plane.slices}</figcaption>"


def _columns(planes: Sequence[Plane]) -> str:
    """All planes on one scale where they stand side by side."""
    return "--columns: " + " ".join(f"minmax(0, {plane.across:.1f}fr)" for plane in planes)


def _orientation(drawn: Drawn) -> str:
    size = " × ".join(f"{zoom:.3g}" for zoom in drawn.zooms)
    told = (
        "L, R: the person's left and right; A, P: front and back; S, I: top and bottom. Left is at the left "
        f"(neurological convention). Slices in the planes of the scan, voxels of {size} mm in true "
        "proportions."
    )
    unknown = " The image does not say how it lies, so the letters may be wrong."
    return told if drawn.oriented else told + unknown


def _edit_map(one: Shown, drawn: Drawn) -> str:
    limit = drawn.edit_limit or 0.0
    ticks = "".join(f"<span>{_percent(limit * place)}</span>" for place in (-1, -0.5, 0, 0.5, 1))
    described = f"Colours from {_percent(-limit)}, blue, over 0, white, to {_percent(limit)}, red"
    return (
        "<h3>Edit map</h3>"
        + paragraph(
            "How much each voxel was brightened (red) or darkened (blue) beside the overall factor: gain "
            "over its median, less 1. Background is left out; what lies beyond the scale has its last colour."
        )
        + _row(one, drawn, EDIT)
        + f'<div class="ramp" role="img" aria-label="{escape(described)}" '
        f'style="background: linear-gradient(to right, {", ".join(edit_ramp())})"></div>'
        f'<div class="ticks" aria-hidden="true">{ticks}</div>'
    )


def _graph(one: Shown, drawn: Drawn, what: str) -> str:
    title, caption = {
        CURVES: ("Tone curves", _about_curves(drawn)),
        HISTOGRAM: ("Histogram", _about_histogram(one, drawn)),
    }[what]
    drawing = one.scan.drawing(what).read_text(encoding="utf-8")
    return (
        f'<figure class="curves"><h3>{title}</h3>{drawing}<figcaption>{escape(caption)}</figcaption></figure>'
    )


def _about_curves(drawn: Drawn) -> str:
    if drawn.from_transform:
        return "The saved curves of all cells inside the head: their median, and where 90 % of them lie."
    return (
        "What voxels of one intensity became: the median, and where 90 % of them lie. Taken from the images; "
        "--save-transform would keep the curves themselves."
    )


def _about_histogram(one: Shown, drawn: Drawn) -> str:
    told = "Intensities of tissue"
    told += ", before brought to the bright value of after." if BEFORE in drawn.pictures else "."
    if one.scan.reference is None:
        return f"{told} The model card does not say how the reference group's intensities are spread."
    shares = " and ".join(f"{100 * share:.0f}{SPACE}% {what}" for what, share in drawn.apart.items())
    intensities = one.record.get("Intensities")
    stripped = isinstance(intensities, Mapping) and intensities.get("SkullStripped") is True
    aim = (
        "The group's scans show whole heads and this one a brain alone, so it must differ from them."
        if stripped
        else "Heads differ, so 0 is not the aim."
    )
    return (
        f"{told} Grey: 90 % of the reference group's scans. Tissue whose intensity would have to change to "
        f"match the group's median: {shares}. {aim}"
    )


# --- Details, methods, words ------------------------------------------------------------------------------


def _details(one: Shown, card: Mapping[str, Any]) -> str:
    record, content = one.record, one.content
    command = record.get("Command")
    rows = [
        ("Image", one.scan.image.name),
        ("Made from", listed([unquote(str(source)) for source in content.get("Sources", [])])),
        ("SHA-256 of the original", record.get("InputSHA256")),
        ("Model", record.get("Model")),
        ("SHA-256 of the weights", record.get("ModelSHA256")),
        ("Model made on", card.get("Created")),
        ("bids-harmonize", record.get("Version")),
        ("Command", shlex.join(command) if command else "not recorded"),
        ("Device", record.get("Device")),
        ("PyTorch", record.get("TorchVersion")),
        ("CUDA", record.get("CUDAVersion")),
        ("Threads", record.get("Threads")),
        ("Seed", record.get("Seed")),
        ("Time, s", record.get("ElapsedSeconds")),
        *((words, content.get(key)) for key, words in ACQUISITION.items()),
    ]
    if one.drawn is not None:
        rows.append(("Voxels", " × ".join(map(str, one.drawn.voxels))))
    told = table(("What", "Value"), [(name, str(value)) for name, value in rows if value is not None])
    return (
        f"<details><summary>Details of this scan: files, model, versions, command</summary>{told}</details>"
    )


def _methods(records: Sequence[Mapping[str, Any]], cards: Mapping[str, Mapping[str, Any]]) -> str:
    return (
        f'<div class="text" id="methods">{escape(methods(records, cards))}</div>'
        '<p class="controls" hidden><button type="button" data-copies="methods">Copy</button>'
        '<span id="methods-told" role="status"></span></p>'
    )


def _words() -> str:
    words = {
        "Gain": "Intensity after over intensity before, voxel by voxel.",
        "Tissue": "Voxels brighter than air.",
        "Tone curve": "Which intensity becomes which. There is one for every place in the image; between "
        "places, voxels are mapped by the curves around them.",
        "Reference group": "The scans whose look all others are given.",
        "Edge": "Two neighbouring voxels that differ by more than noise.",
    }
    listing = "".join(f"<dt>{word}</dt><dd>{escape(text)}</dd>" for word, text in words.items())
    return f"<dl>{listing}</dl>"
