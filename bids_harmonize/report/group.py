"""The group level as one page per suffix: is the site effect gone, and which scans are to be looked at?

The page needs nothing but itself. It is read without scripts; a script adds sorting and filtering.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.bids.atomic import remove_abandoned, write_text
from bids_harmonize.bids.logs import Crash, read_crashes
from bids_harmonize.bids.sites import Sites, assign_sites
from bids_harmonize.distribution import TISSUES, WHEN
from bids_harmonize.metrics import Comparison
from bids_harmonize.probe import DEALS, MOST_TRAINED, PARTITIONS, Probed
from bids_harmonize.report import group_sites
from bids_harmonize.report.comparison import LEAST_SCANS, REMARKABLE, Group
from bids_harmonize.report.group_sites import (
    NONE,
    TISSUE_NAMES,
    chance,
    digits,
    distributions,
    matrices,
    percent,
    probe_of_sites,
    region,
    tissue_medians,
)
from bids_harmonize.report.group_table import write_table
from bids_harmonize.report.page import count, page, paragraph, scrolled, section
from bids_harmonize.report.results import Result, read_results
from bids_harmonize.version import version

Array = NDArray[np.float64]

MOST_LISTED = 100
KINDS = {
    "failed": "failed",
    "passed": "passed through, not harmonized",
    "unlike": "unlike what the model is meant for",
    "outlier": "unlike the others",
    "warned": "with warnings",
}

STYLE = (
    group_sites.STYLE
    + """
main { max-width: 76rem; }
.name { min-width: 9rem; } .place { min-width: 6rem; } .why { min-width: 14rem; }
#controls { display: flex; flex-wrap: wrap; gap: .75rem; margin: .75rem 0; align-items: end; }
#controls[hidden] { display: none; }
#controls label { display: block; font-size: .9rem; color: var(--faint); }
#controls input, #controls select { display: block; font: inherit; padding: .3rem .5rem; max-width: 100%;
  color: var(--ink); background: var(--paper); border: 1px solid var(--faint); border-radius: .3rem; }
#scans td:not([class]), #scans .whole { min-width: 0; overflow-wrap: normal; }
#scans th button { all: unset; cursor: pointer; }
#scans th button::after { content: " ↕"; color: var(--faint); }
#scans th[aria-sort=ascending] button::after { content: " ↑"; color: var(--ink); }
#scans th[aria-sort=descending] button::after { content: " ↓"; color: var(--ink); }
#scans th button:focus-visible { outline: .15rem solid var(--blue); outline-offset: .15rem; }
@media print { #controls { display: none; } }
"""
)
SCRIPT = """
(() => {
  const table = document.getElementById("scans"), body = table.tBodies[0], rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells], controls = document.getElementById("controls");
  const [find, site, kind, shown] = ["find", "site", "kind", "shown"].map(id => document.getElementById(id));
  const filter = () => {
    const text = find.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !(row.textContent.toLowerCase().includes(text)
      && (!site.value || row.dataset.site === site.value)
      && (!kind.value || row.dataset.kinds.split(" ").includes(kind.value)));
    shown.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} shown`;
  };
  const sort = (head, column) => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const text = row => row.cells[column].textContent.trim();
    const missing = value => value === "" || value === "–";
    const compare = (a, b) => missing(a) || missing(b) ? missing(a) - missing(b)
      : sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b, "en", {numeric: true}) : a - b);
    body.append(...rows.sort((a, b) => compare(text(a), text(b))));
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(head, column));
    head.replaceChildren(button);
  });
  controls.addEventListener("input", filter);
  controls.hidden = false;
  filter();
})();
"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A table and a page of the scans of one suffix, how many they are, and where these come from."""

    table: Path
    page: Path
    scans: int
    sites: Sites


@dataclass(frozen=True, kw_only=True)
class Line:
    """A scan to look at: its name, page (or none), site, and why, by kind (`KINDS`)."""

    name: str
    link: str | None
    site: str | None
    reasons: Mapping[str, str]


def write_group_reports(
    derivatives: Path, dataset: Path, *, column: str | None = None, write: bool = True
) -> list[Report]:
    """Write ``group_<suffix>.tsv``, its data dictionary and ``group_<suffix>.html``, for every suffix.

    Only sidecars and logs of the derivatives are read, and ``participants.tsv`` of the dataset.

    Parameters
    ----------
    derivatives, dataset
        Folders of the outputs and of the input.
    column
        Of ``participants.tsv``: the site; None for the usual names.
    write
        Or else only tell what would be written.

    Raises
    ------
    UsageError
        There is no such column.
    BadData
        A sidecar, or the table in which the column was asked for, cannot be read.
    CannotCreate, InputOutputError
        As `write_text` does.
    """
    if write:
        remove_abandoned(derivatives)
    crashes = read_crashes(derivatives)
    reports = []
    for suffix, results in read_results(derivatives).items():
        sites = assign_sites(
            [result.participant for result in results],
            [result.metadata for result in results],
            dataset,
            column,
        )
        path = derivatives / f"group_{suffix}.tsv"
        report = Report(table=path, page=path.with_suffix(".html"), scans=len(results), sites=sites)
        if write:
            group = Group(results=results, sites=sites)
            write_table(report.table, group)
            write_text(report.page, group_page(suffix, group, _failed(suffix, results, crashes)))
        reports.append(report)
    return reports


def group_page(suffix: str, group: Group, failed: Sequence[Crash]) -> str:
    """The page, HTML.

    Parameters
    ----------
    suffix
        As in ``T1w``.
    group
        The scans.
    failed
        Scans of the same suffix without a result.
    """
    title = f"{suffix}: is the site effect gone?"
    lines = _lines(group, failed)
    people = len({result.participant for result in group.results})
    told = (
        f"Group report of {count(len(group.results), 'scan')} of {count(people, 'participant')}, "
        f"bids-harmonize {version()}"
    )
    parts = [
        f"<header><h1>{escape(title)}</h1>",
        paragraph(told, "faint"),
        *(paragraph(text, "lead") for text in _answer(group)),
        paragraph(f"Sites are told by {group.sites.rule}. Scans are compared in {region(group)}."),
        _tiles(group, lines),
        *(paragraph(text, "warning") for text in _remarks(group)),
        "</header>",
        section("Scans to look at", _attention(lines)),
        section("Intensities, site by site", distributions(group)),
        section("Distances between sites", matrices(group)),
        section("Can a classifier tell the sites apart?", probe_of_sites(group)),
        section("White matter, grey matter, fluid", tissue_medians(group)),
        section("All scans", _scans(group, lines)),
        section("How this was computed", _methods(group)),
    ]
    return page(title, parts, style=STYLE, script=SCRIPT)


# --- The answer -------------------------------------------------------------------------------------------


def _answer(group: Group) -> list[str]:
    if not group.compared:
        return ["No scan here can be compared: none has intensities measured before and after harmonization."]
    before, after = (group.comparisons[when] for when in WHEN)
    if len(before.sites) < 2:
        return [
            "There are no two sites here, so there is no site effect to look at; scans are compared with "
            "each other. Typically, a scan differs from the middle of all by "
            f"{percent(np.median(before.to_pooled))} of the range of intensities before, and by "
            f"{percent(np.median(after.to_pooled))} after."
        ]
    told = (
        f"The intensities of two sites differ by {percent(_between(before))} of their range on average "
        f"before harmonization, and by {percent(_between(after))} after."
    )
    if np.isfinite(_within(before)):
        told += (
            f" A scan differs from the middle of its own site by {percent(_within(before))} before, and by "
            f"{percent(_within(after))} after."
        )
    if _between(after) >= _between(before):
        told += " Harmonization brought the sites no nearer to each other."
    return [told, *([_can_tell(group.probes)] if group.probes else [])]


def _can_tell(probes: Mapping[str, Probed]) -> str:
    before, after = (probes[when] for when in WHEN)
    result = f"{percent(after.accuracy)} of the people (chance: {chance(after)})"
    if after.above_chance:
        return (
            f"A classifier still finds the right site for {result}; before, for {percent(before.accuracy)}. "
            "The site effect is not gone, or the people of the sites differ."
        )
    return (
        f"A classifier finds the right site for {result}, no better than by chance as far as these numbers "
        f"tell; before, for {percent(before.accuracy)}."
    )


def _tiles(group: Group, lines: Sequence[Line]) -> str:
    tiles = []
    if group.compared and len(group.comparisons["Before"].sites) > 1:
        values = " → ".join(percent(_between(group.comparisons[when])) for when in WHEN)
        tiles.append(("Distance between sites", values, "of the range of intensities; before → after"))
    if group.probes:
        values = " → ".join(percent(group.probes[when].accuracy) for when in WHEN)
        tiles.append(
            (
                "Site found by a classifier",
                values,
                f"chance: {chance(group.probes['After'])}; before → after",
            )
        )
    variations = [_variation(group.ratios(when)[group.compared]) for when in WHEN]
    if np.all(np.isfinite(variations)):
        values = " → ".join(map(percent, variations))
        tiles.append(("Spread of the grey/white ratio", values, "coefficient of variation; before → after"))
    kinds = Counter(kind for line in lines for kind in line.reasons)
    said = "; ".join(f"{kinds[kind]} {KINDS[kind]}" for kind in KINDS if kinds[kind])
    tiles.append(("Scans to look at", str(len(lines)), said or "nothing stands out"))
    boxes = "".join(
        f"<div>{escape(label)}<b>{escape(value)}</b><small>{escape(small)}</small></div>"
        for label, value, small in tiles
    )
    return f'<div class="tiles">{boxes}</div>'


def _remarks(group: Group) -> list[str]:
    """What must be known before the figures are believed."""
    remarks = [f"{remark[0].upper()}{remark[1:]}." for remark in group.sites.remarks]
    harmonized = [n for n, result in enumerate(group.results) if result.harmonized]
    unmeasured = [n for n in harmonized if not group.results[n].after]
    if unmeasured:
        remarks.append(
            f"{count(len(unmeasured), 'scan')} were harmonized by a release that did not measure "
            "intensities; harmonize them again with --force to have them compared."
        )
    without = len(set(harmonized) - set(unmeasured) - set(group.compared))
    if without:
        remarks.append(f"{count(without, 'scan')} could not be compared, because no brain was found in them.")
    return remarks


# --- What to look at --------------------------------------------------------------------------------------


def _lines(group: Group, failed: Sequence[Crash]) -> list[Line]:
    """Scans that are failed, passed through, unlike, outliers or warned of, the gravest first."""
    lines = [
        Line(name=_source(crash.scan.name), link=None, site=None, reasons={"failed": crash.sentence})
        for crash in failed
    ]
    for n, result in enumerate(group.results):
        reasons = _reasons(result, group.outliers[n])
        if reasons:
            lines.append(
                Line(
                    name=_source(result.name),
                    link=_link(result),
                    site=group.sites.labels[n],
                    reasons=reasons,
                )
            )
    order = list(KINDS)
    return sorted(lines, key=lambda line: min(order.index(kind) for kind in line.reasons))


def _reasons(result: Result, outlying: Sequence[str]) -> dict[str, str]:
    warnings = "; ".join(result.warnings)
    reasons = {}
    if not result.harmonized:
        reasons["passed"] = "passed through, not harmonized"
    if result.unlike:
        reasons["unlike"] = warnings or "unlike what the model is meant for"
    if outlying:
        reasons["outlier"] = "; ".join(outlying)
    if warnings and not result.unlike:
        reasons["warned"] = warnings
    return reasons


def _attention(lines: Sequence[Line]) -> str:
    if not lines:
        return paragraph("None failed, none was passed through, and none stands out among the others.")
    rows = "".join(
        f'<tr><td class="name">{_named(line.name, line.link)}</td>'
        f'<td class="place">{escape(line.site or NONE)}</td><td class="why">{escape(_why(line))}</td></tr>'
        for line in lines[:MOST_LISTED]
    )
    more = len(lines) - MOST_LISTED
    told = (
        f"The gravest {MOST_LISTED} of {len(lines)} are listed; all are in the table below."
        if more > 0
        else ""
    )
    return scrolled(
        '<table><thead><tr><th scope="col">Scan</th><th scope="col">Site</th><th scope="col">Why</th>'
        f"</tr></thead><tbody>{rows}</tbody></table>"
    ) + (paragraph(told, "faint") if told else "")


def _why(line: Line) -> str:
    told = [text if kind != "failed" else f"failed: {text}" for kind, text in line.reasons.items()]
    return "; ".join(told)


def _link(result: Result) -> str | None:
    """The page about the person, if there is one."""
    folders = (parent.parent for parent in result.sidecar.parents if parent.name == result.participant)
    name = f"{result.participant}.html"
    return quote(name) if any((folder / name).is_file() for folder in folders) else None


def _named(name: str, link: str | None) -> str:
    return f'<a href="{escape(link)}">{escape(name)}</a>' if link else escape(name)


def _failed(suffix: str, results: Iterable[Result], crashes: Iterable[Crash]) -> list[Crash]:
    """Scans of a suffix that failed and have no result since."""
    there = {_source(result.name) for result in results}
    return [
        crash
        for crash in crashes
        if crash.stem.endswith(f"_{suffix}") and _source(crash.scan.name) not in there
    ]


def _source(name: str) -> str:
    """What the names of a scan and of its results share."""
    return re.sub("_desc-[^_]+", "", name.split(".")[0])


# --- All scans --------------------------------------------------------------------------------------------


def _scans(group: Group, lines: Sequence[Line]) -> str:
    reasons = {line.name: line for line in lines}
    heads = (
        "Scan",
        "Site",
        "State",
        *TISSUE_NAMES.values(),
        "Grey/white before",
        "Grey/white after",
        "Distance before, %",
        "Distance after, %",
        "To look at",
    )
    columns = [
        *((group.medians(tissue, "After"), 1.0) for tissue in TISSUES),
        *((group.ratios(when), 1.0) for when in WHEN),
        *((group.distances[when], 100.0) for when in WHEN),
    ]
    rows = [
        _scan_row(
            _source(result.name),
            _link(result),
            group.sites.labels[n],
            "harmonized" if result.harmonized else "passed through",
            [factor * float(values[n]) for values, factor in columns],
            reasons.get(_source(result.name)),
        )
        for n, result in enumerate(group.results)
    ]
    rows += [
        _scan_row(line.name, None, None, "failed", [np.nan] * len(columns), line)
        for line in lines
        if "failed" in line.reasons
    ]
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    told = (
        "Tissues: medians after harmonization. Distance: to all scans together, in percent of the range of "
        f"intensities. The same and more is in group_{group.results[0].suffix}.tsv beside this page."
    )
    return (
        paragraph(told)
        + _controls(group)
        + scrolled(f'<table id="scans"><thead><tr>{top}</tr></thead><tbody>{"".join(rows)}</tbody></table>')
    )


def _controls(group: Group) -> str:
    sites = sorted({label for label in group.sites.labels if label})
    places = "".join(f'<option value="{escape(site)}">{escape(site)}</option>' for site in sites)
    kinds = "".join(f'<option value="{kind}">{escape(text)}</option>' for kind, text in KINDS.items())
    return (
        '<div id="controls" role="search" hidden>'
        '<label>Find<input id="find" type="search"></label>'
        f'<label>Site<select id="site"><option value="">all</option>{places}</select></label>'
        f'<label>Show<select id="kind"><option value="">all</option>{kinds}</select></label>'
        '<span id="shown" role="status"></span></div>'
    )


def _scan_row(
    name: str, link: str | None, site: str | None, state: str, values: Sequence[float], line: Line | None
) -> str:
    numbers = "".join(f'<td class="whole">{digits(value)}</td>' for value in values)
    kinds = " ".join(line.reasons) if line else ""
    return (
        f'<tr data-site="{escape(site or "")}" data-kinds="{kinds}">'
        f'<td class="name">{_named(name, link)}</td>'
        f'<td class="place">{escape(site or NONE)}</td><td>{state}</td>{numbers}'
        f'<td class="why">{escape(_why(line)) if line else ""}</td></tr>'
    )


# --- Methods ----------------------------------------------------------------------------------------------


def _methods(group: Group) -> str:
    words = {
        "Intensities": "Of each scan, at about 2 mm, before and after, with masks from the scan before: the "
        "quantile function (49 levels from 2 to 98 %) inside the head and inside the brain, and medians of "
        "tissues by k-means on the intensities inside the brain. They are in the sidecars; no image is read "
        "for this page.",
        "Fluid": "The class of the darkest (T1w) or brightest (T2w) intensities in the brain mask. Where the "
        "mask leaves most of the fluid out, it holds grey matter next to it.",
        "Where scans are compared": "In the brain, if one was found in nine of ten scans or some scans are "
        "skull-stripped and others not; else in all but the air, in which the field of view has a part.",
        "Distance": "Mean absolute difference of two quantile functions over the span of the median one of "
        "all scans: of a scan, from that median; of two sites, between their medians.",
        "Outlier": "A scan whose distance, logarithm of white matter, or logarithm of the grey/white ratio "
        f"after harmonization lies more than {REMARKABLE} robust standard deviations from the median "
        f"(Iglewicz & Hoaglin 1993). Not told of fewer than {LEAST_SCANS} scans.",
        "Classifier": "Linear discriminants on the standardized quantile function, all sites equally likely, "
        "covariance shrunk (Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4). Cross-validated, all "
        f"scans of a person in one part, averaged over {PARTITIONS} partitions; trained on at most "
        f"{MOST_TRAINED:,} scans, as evenly of the sites as can be. Interval: of the posterior "
        "of the balanced accuracy (Brodersen et al. 2010, doi:10.1109/ICPR.2010.764). Chance: the middle 95 "
        f"% of {DEALS} probes whose sites were dealt out at random.",
        "What it cannot tell": "Sites differ in people too. If age, sex or disease differ between sites, "
        "part of the distance between sites is theirs and should stay. Not a medical device: for research "
        "only.",
    }
    listed = "".join(f"<dt>{word}</dt><dd>{escape(text)}</dd>" for word, text in words.items())
    return f"<dl>{listed}</dl>"


def _between(comparison: Comparison) -> float:
    """Mean distance of two sites."""
    return float(comparison.between[np.triu_indices(len(comparison.sites), 1)].mean())


def _within(comparison: Comparison) -> float:
    """Mean distance of a scan to the median of its site; not a number where no site has two."""
    own = comparison.to_own_site
    return float(own[np.isfinite(own)].mean()) if np.isfinite(own).any() else float("nan")


def _variation(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1) / known.mean()) if known.size > 1 else float("nan")
