"""The directive ``{generated} NAME arguments``: what is made at build time from the project's own files.

Tables come from ``benchmarks/results`` and the model cards, the picture of the floors from the import
contract in ``pyproject.toml``. None of them can go stale, since none of them is pasted. All
kinds are in this one file, because Sphinx loads it by itself, outside of any package.
"""

from __future__ import annotations

import ast
import html
import json
import textwrap
import tomllib
from argparse import SUPPRESS
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import GenericAlias
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from benchmarks import projection
from benchmarks.formatting import markdown_table, number, number_or_dash
from benchmarks.result_rows import Row
from benchmarks.table import ARROWS, best, cell
from bids_harmonize.cli import dataset
from bids_harmonize.model.card import ModelCard, read_card
from bids_harmonize.model.card_entries import StartingModel

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bids_harmonize"
RESULTS = ROOT / "benchmarks" / "results"
SIZES = {"head": "256 × 256 × 192", "thick": "256 × 256 × 30"}
MODELS = ("T1w", "T2w", "prostate-T2w")
#: Names of tasks in ``scale.json``, in the words of this documentation.
TASKS = {
    "selection of one person, nothing else": "select the scans of one participant",
    "selection of all, nothing else": "select all scans",
    "participant --participant-label X --dry-run": "`participant --participant-label X --dry-run`",
    "participant --dry-run": "`participant --dry-run`",
    "group": "`group`",
}

# Pixels of the picture of the floors.
WIDTH, GAP, HEADING, LINE = 900, 14, 36, 15
CHARACTER = 6.4

Arguments = Sequence[str]
Content = Sequence[str]


class Generated(SphinxDirective):
    """Parse what one of `MAKERS` returns as Markdown in place of the directive."""

    required_arguments = 1
    optional_arguments = 100
    has_content = True

    def run(self) -> list[nodes.Node]:
        for path in (*RESULTS.glob("*.json"), ROOT / "pyproject.toml"):
            self.env.note_dependency(str(path))
        name, *arguments = self.arguments
        markdown = MAKERS[name](arguments, [line for line in self.content if line.strip()])
        container = nodes.container()
        self.state.nested_parse(StringList(markdown.splitlines(), source=name), 0, container)
        return container.children


# --- Tables of the benchmarks ------------------------------------------------------------------------------


def efficacy(arguments: Arguments, content: Content) -> str:
    """A line per figure and a column per method of one of ``efficacy_*.json``.

    The argument is the modality; methods may follow it (default: all). Lines of the content, such as
    ``A: agreement inside the brain, dB``, choose the figures (default: all).
    """
    modality, *methods = arguments
    rows = _efficacy_rows(f"efficacy_{modality}")
    names = [name.replace("_", " ") for name in methods] or list(dict.fromkeys(row.method for row in rows))
    lines = _by_figure(rows)
    wanted = [_figure(line) for line in content] or list(lines)
    body = []
    for tier, figure in wanted:
        found = lines[tier, figure]
        bold = best(found)
        first = next(iter(found.values()))
        cells = [cell(found.get(name), bold=name in bold) for name in names]
        body.append([tier, f"{figure} {ARROWS[first.better]}", str(first.n), *cells])
    return _table(["tier", "metric", "n", *names], body)


def ablation(arguments: Arguments, content: Content) -> str:
    """A line per variant of the training and a column per figure of ``ablation_*.json``."""
    lines = _by_figure(_efficacy_rows(f"ablation_{arguments[0]}"))
    variants = list(dict.fromkeys(name for found in lines.values() for name in found))
    head = [
        f"{tier}: {figure} {ARROWS[next(iter(found.values())).better]}"
        for (tier, figure), found in lines.items()
    ]
    body = [[name, *(cell(found.get(name), bold=False) for found in lines.values())] for name in variants]
    return _table(["variant", *head], body)


def pooled_studies(arguments: Arguments, content: Content) -> str:
    """A line per figure and kind of pool and a column per modality of ``pooled_studies.json``."""
    rows = _results("pooled_studies")["Rows"]
    modalities = list(dict.fromkeys(row["modality"] for row in rows))
    values: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        values.setdefault((row["figure"], row["pools"]), {})[row["modality"]] = row["value"]
    body = [
        [figure, pools, *(number_or_dash(found.get(name, float("nan"))) for name in modalities)]
        for (figure, pools), found in values.items()
    ]
    return _table(["figure", "pools", *modalities], body)


def _efficacy_rows(name: str) -> list[Row]:
    return [Row.from_json(row) for row in _results(name)["Rows"]]


def _by_figure(rows: Iterable[Row]) -> dict[tuple[str, str], dict[str, Row]]:
    lines: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault((row.tier, row.metric), {})[row.method] = row
    return lines


def _figure(line: str) -> tuple[str, str]:
    tier, _, figure = line.partition(": ")
    return tier, figure


def speed(arguments: Arguments, content: Content) -> str:
    """Seconds and memory of one scan by every method, of the sizes in the arguments (default: all)."""
    rows = _results("speed")["Rows"]
    sizes = list(arguments) or list(dict.fromkeys(row["size"] for row in rows))
    body = []
    for size in sizes:
        chosen = [row for row in rows if row["size"] == size]
        floors = {
            row["case"]["threads"]: row for row in chosen if row["case"]["method"] == "reading and writing"
        }
        for row in chosen:
            case, floor = row["case"], floors[row["case"]["threads"]]
            body.append(
                [
                    SIZES.get(size, f"{size}³"),
                    case["method"],
                    f"{case['device']}, {case['threads']}",
                    number(row["inner_seconds"]),
                    number(row["inner_seconds"] / floor["inner_seconds"]),
                    number(row["seconds"]),
                    number(row["seconds"] / floor["seconds"]),
                    number(row["megabytes"]),
                ]
            )
    ratio = "× reading and writing"
    head = [
        "scan",
        "method",
        "device, threads",
        "inner call, s",
        ratio,
        "whole command, s",
        ratio,
        "peak, MB",
    ]
    return _table(head, body)


def throughput(arguments: Arguments, content: Content) -> str:
    """Seconds per scan in a run over many scans."""
    found = _results("many")
    floor = found["Lines"][0]["seconds"]
    body = [
        [
            line["method"],
            str(line["cpus"]),
            number(line["seconds"]),
            number(line["seconds"] / floor),
            # What a run with more CPUs measures of its first process says nothing of the others.
            number(line["processor_seconds"]) if line["cpus"] == 1 else "-",
            number(line["megabytes"]) if line["cpus"] == 1 else "-",
        ]
        for line in found["Lines"]
    ]
    head = ["method", "CPUs", "s per scan", "× reading and writing", "processor, s per scan", "peak, MB"]
    start = found["Start"]
    return _table(head, body) + (
        f"\n{found['Scans']} scans of {SIZES['head']} voxels in one command, reports included; whole "
        f"commands, medians of {found['Repeats']}. `--help` answers in {number(start['help_seconds'])} s; "
        f"the first scan begins {number(start['first_seconds'])} s after the start of the program.\n"
    )


def large_datasets(arguments: Arguments, content: Content) -> str:
    """Seconds and memory of what is done once per dataset."""
    found = _results("scale")
    body = [
        [TASKS[task["name"]], number(task["seconds"]), number(task["megabytes"])] for task in found["Tasks"]
    ]
    return _table(["task", "seconds", "peak, MB"], body) + (
        f"\n{found['People']:,} participants with two sessions of T1w and T2w, all with sidecars; for the "
        f"group level, {found['Scans']:,} sidecars of 20 sites. Each task in a process of its own, "
        f"{found['Repeats']} time(s).\n"
    )


def dispatch(arguments: Arguments, content: Content) -> str:
    """What handing out one scan costs."""
    found = _results("overhead")
    body = [
        [name, number(found["SecondsToTheFirst"][name]), number(milliseconds)]
        for name, milliseconds in found["Milliseconds"].items()
    ]
    return _table(["workers", "until the first result, s", "per scan, ms"], body)


def many_scans(arguments: Arguments, content: Content) -> str:
    """The projection of as many scans as the first argument says, on as many cores as the others say."""
    scans, *cores = map(int, arguments)
    costs = projection.read(_results("many"), _results("scale"), _results("overhead"))
    return projection.report(costs, projection.Assumptions(), scans, cores)


def machine(arguments: Arguments, content: Content) -> str:
    """The machine on which a result was measured."""
    found = _results(arguments[0])["Machine"]
    return (
        f"Measured on: {found['Processor']}, {found['Cores']} cores, {found['MemoryGB']} GB of memory, "
        f"no GPU, Python {found['Python']}.\n"
    )


# --- Models ------------------------------------------------------------------------------------------------


def models(arguments: Arguments, content: Content) -> str:
    """What the cards of the bundled models say about data, training and agreement."""
    head = [
        *("model", "for", "trained on", "reference group", "training"),
        *("altered, rescaled only, dB", "altered, harmonized, dB", "unaltered, harmonized, dB"),
    ]
    return _table(head, [_model(name, read_card(PACKAGE / "weights" / f"{name}.json")) for name in MODELS])


def _model(name: str, card: ModelCard) -> list[str]:
    data, agreement = card.data, card.agreement
    # Every bundled model holds somebody out.
    assert data is not None and agreement is not None
    trainings = list(_trainings(card))
    steps = sum(training.schedule["steps"] for training in trainings)
    minutes = sum(training.duration_seconds for training in trainings) / 60
    heads = len(card.simulated_heads or ())
    return [
        f"`{name}`",
        f"{card.modality} of the {'head' if 'HEAD' in card.body_parts else 'prostate'}",
        f"{data.name} ({data.license})" + (f"; {heads} simulated heads" if heads else ""),
        f"{len(data.reference_group)} scans; held out: {', '.join(data.held_out)}",
        f"{steps} steps, {minutes:.0f} min",
        *map(number, (agreement.rescaled, agreement.augmented, agreement.unaltered)),
    ]


def _trainings(card: ModelCard) -> Iterator[ModelCard | StartingModel]:
    """The training of a model and, before it, those of the models that it was started from."""
    yield card
    start = card.started_from
    while start is not None:
        yield start
        start = None if start.started_from is None else StartingModel.from_json(start.started_from, ROOT)


# --- The house ---------------------------------------------------------------------------------------------


def floors(arguments: Arguments, content: Content) -> str:
    """The layers of the import contract as a picture, each package with its purpose."""
    layers = [[name.strip() for name in layer.split("|")] for layer in _contracts("layers")[0]["layers"]]
    without_torch = {
        name.removeprefix("bids_harmonize.")
        for contract in _contracts("forbidden")
        if "torch" in contract["forbidden_modules"]
        for name in contract["source_modules"]
    }
    boxes, top = [], 1
    for layer in layers:
        width = (WIDTH - GAP * (len(layer) - 1)) / len(layer)
        texts = [textwrap.wrap(_purpose(name), int((width - 24) / CHARACTER)) for name in layer]
        height = HEADING + LINE * max(len(lines) for lines in texts)
        for place, (name, lines) in enumerate(zip(layer, texts, strict=True)):
            title = name + (" (no torch)" if name in without_torch else "")
            boxes += _box(place * (width + GAP), top, width, height, [title, *lines])
        top += height + GAP
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {top - GAP + 1}" role="img" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{' above '.join(', '.join(layer) for layer in layers)}</title>",
        *boxes,
    ]
    parts.append("</svg>")
    return f'<div class="floors">{"".join(parts)}</div>\n'


def packages(arguments: Arguments, content: Content) -> str:
    """Packages from the top floor down: purpose, modules, lines."""
    body = []
    for layer in _contracts("layers")[0]["layers"]:
        for name in sorted(part.strip() for part in layer.split("|")):
            files = sorted((PACKAGE / name).rglob("*.py")) or [PACKAGE / f"{name}.py"]
            lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
            body.append([f"`{name}`", _docstring(name).replace("\n", " "), str(len(files)), str(lines)])
    return _table(["package", "what it is", "files", "lines"], body)


def markers(arguments: Arguments, content: Content) -> str:
    """The markers of tests."""
    declared = _pyproject()["pytest"]["ini_options"]["markers"]
    named = (marker.split(": ", 1) for marker in declared)
    return _table(["marker", "tests"], [[f"`{name}`", text] for name, text in named])


def modules(arguments: Arguments, content: Content) -> str:
    """The API of every module of a package, by autodoc."""
    (package,) = arguments
    paths = sorted(path for path in (PACKAGE / package).rglob("*.py") if path.name != "__init__.py")
    names = [".".join(("bids_harmonize", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in paths]
    directive = "```{{eval-rst}}\n{0}\n{1}\n\n.. automodule:: {0}\n   :members:\n   :show-inheritance:\n```\n"
    blocks = [directive.format(name, "-" * len(name)) for name in names]
    return f"{_docstring(package)}\n\n" + "\n".join(blocks)


def _contracts(kind: str) -> list[dict[str, Any]]:
    contracts = _pyproject()["importlinter"]["contracts"]
    return [contract for contract in contracts if contract["type"] == kind]


def _pyproject() -> dict[str, Any]:
    """The settings of tools."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    return found


def _docstring(name: str) -> str:
    path = PACKAGE / name / "__init__.py"
    tree = ast.parse((path if path.is_file() else PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").split("\n\n")[0]


def _purpose(name: str) -> str:
    return _docstring(name).split(". ")[0].removesuffix(".").replace("`", "")


def _box(left: float, top: float, width: float, height: float, lines: Sequence[str]) -> list[str]:
    """A package: a frame, its name in bold and its purpose below."""
    title, *rest = lines
    return [
        f'<rect x="{left + 1:.0f}" y="{top}" width="{width - 2:.0f}" height="{height}" rx="6"/>',
        _svg_text(left + 12, top + 22, title, 'font-weight="bold" font-size="14"'),
        *(
            _svg_text(left + 12, top + 42 + LINE * index, line, 'class="quiet" font-size="12"')
            for index, line in enumerate(rest)
        ),
    ]


def _svg_text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" {attributes}>{html.escape(text)}</text>'


def _results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    return markdown_table(head, body) + "\n"


def levels(arguments: Arguments, content: Content) -> str:
    """A line per option of ``bids-harmonize`` and a column per level: whether it is obeyed or refused."""
    shown = [
        action for action in dataset.parser().actions if action.option_strings and action.help != SUPPRESS
    ]
    body = []
    for action in shown:
        name = next(name for name in action.option_strings if name.startswith("--"))
        obeyed = dataset.LEVELS_OF_OPTION.get(action.dest, dataset.ANALYSIS_LEVELS)
        answers = ("obeyed" if level in obeyed else "refused" for level in dataset.ANALYSIS_LEVELS)
        body.append([f"`{name}`", *answers])
    return _table(["option", *dataset.ANALYSIS_LEVELS], body)


MAKERS: Mapping[str, Callable[[Arguments, Content], str]] = {
    "ablation": ablation,
    "dispatch": dispatch,
    "efficacy": efficacy,
    "floors": floors,
    "large-datasets": large_datasets,
    "levels": levels,
    "machine": machine,
    "markers": markers,
    "models": models,
    "modules": modules,
    "packages": packages,
    "pooled-studies": pooled_studies,
    "projection": many_scans,
    "speed": speed,
    "throughput": throughput,
}


def skip_type_aliases(
    app: Sphinx, what: str, name: str, value: object, skip: bool, options: object
) -> bool | None:
    """Leave out names of array types: numpydoc takes them for callables and finds no signature."""
    return True if isinstance(value, GenericAlias) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive; called by Sphinx."""
    app.add_directive("generated", Generated)
    app.connect("autodoc-skip-member", skip_type_aliases)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
