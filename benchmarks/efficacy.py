"""Efficacy of harmonization, side by side with what users would use instead, in one table.

    python -m benchmarks.efficacy --out OUT

All methods get the same scans. The table is printed and written to OUT/efficacy.md, all numbers to
OUT/efficacy.json, a figure to OUT/efficacy.png. Real scans and label maps are read from the folder named in
BIDS_HARMONIZE_SHARED, or ``shared`` beside the checkout. Install its dependencies with ``pip install
'.[benchmark]'``.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Self

from benchmarks import splits
from benchmarks.data import JUDGES, PROSTATE, Data
from benchmarks.formatting import number
from benchmarks.methods import NAMES, Method, make_methods
from benchmarks.result_rows import Row, summarize
from benchmarks.scans import shared_folder
from benchmarks.table import draw, markdown
from benchmarks.tiers.agreement import ORACLE
from benchmarks.tiers.judge import CEILING
from bids_harmonize.model.card import ModelCard, find_model, read_card

#: Module of each tier, in the order of the table.
TIERS = {
    "A": "agreement",
    "B": "repeats",
    "C": "held_out",
    "D": "distribution",
    "E": "radiomics",
    "F": "site_logistic_probe",
    "G": "lesions",
    "H": "invariants",
    "I": "biology",
    "J": "judge",
    "K": "surroundings",
    "P": "prostate",
}
MODALITIES = ("T1w", "T2w", PROSTATE)
#: The tiers that need neither label maps nor other sites, of which there are none for prostates.
PROSTATE_TIERS = ("C", "H", "K", "P")
PACKAGES = ("bids-harmonize", "intensity-normalization", "SimpleITK", "scikit-image", "numpy", "torch")
TIME = "time"
SITE_PROBE_NOTE = (
    "- The site probe of tier F is a logistic regression on features of the images; its accuracies are not "
    "comparable with those on the page of the group level, which come from a linear discriminant analysis."
)
RESOLUTION = {True: "in full resolution", False: "of heads averaged to voxels of up to 2 mm"}


@dataclass(kw_only=True)
class Results:
    """The rows, the time of each tier, what failed, and the tiers without scans."""

    rows: list[Row] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    @classmethod
    def of_other_tiers(cls, file: Path, tiers: Sequence[str]) -> Self:
        """What a file of results has of tiers that are not measured now, and of the time of methods."""
        content = json.loads(file.read_text(encoding="utf-8"))
        rows = [Row.from_json(row) for row in content["Rows"]]

        def is_other(name: str) -> bool:
            return name.split()[0] not in tiers

        return cls(
            rows=[row for row in rows if is_other(row.tier)],
            seconds={name: spent for name, spent in content["SecondsByTier"].items() if is_other(name)},
            failures=content["Failures"],
            empty=[name for name in content["NoSuchScans"] if is_other(name)],
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    models = {_modality_of(read_card(path)): path for path in options.model}
    results = Results()
    if options.add:
        results = Results.of_other_tiers(options.out / "efficacy.json", options.tiers)
    for modality in options.modality:
        model = models.get(modality, modality)
        with tempfile.TemporaryDirectory(prefix="efficacy-") as folder:
            data = Data(
                shared=options.shared,
                modality=modality,
                development=options.development,
                native=options.native,
                pairs=options.pairs or options.shared / "data" / "pairs",
                echo_times=_echo_times(model),
                judges=options.judges,
            )
            methods = make_methods(options.methods, modality, data.reference, model, Path(folder))
            # The files are written after every tier, so that a later one that fails takes nothing away.
            for _ in measure(options.tiers, methods, data, results):
                _write(results, options, models)
    print(report(results, options.methods, native=options.native))
    return 0


def _echo_times(model: str | Path) -> Sequence[float] | None:
    """Those from which and to which the model's reference group was brought; None for a group as scanned."""
    card = find_model(model).card
    return card.data.echo_times if card.data else None


def _modality_of(card: ModelCard) -> str:
    return PROSTATE if "PROSTATE" in card.body_parts else card.modality


def measure(tiers: Sequence[str], methods: Sequence[Method], data: Data, results: Results) -> Iterator[None]:
    """Run the tiers on one modality, and add their rows, then run times and failures, to the results.

    Yields whenever something was added.
    """
    for tier in tiers:
        if not _has_scans(tier, data.modality):
            continue
        start = time.perf_counter()
        rows = import_module(f"benchmarks.tiers.{TIERS[tier]}").run(methods, data)
        spent = time.perf_counter() - start
        results.rows += rows
        results.seconds[f"{tier} {data.modality}"] = round(spent, 1)
        if not rows:
            results.empty.append(f"{tier} {data.modality}")
        print(f"tier {tier} {data.modality}: {len(rows)} rows, {spent:.0f} s", file=sys.stderr, flush=True)
        yield
    timed = {(row.modality, row.method) for row in results.rows if row.tier == TIME}
    for method in methods:
        if (data.modality, method.name) not in timed:
            results.rows += _times(method, data.modality)
        if method.failures:
            results.failures[f"{method.name} {data.modality}"] = dict(method.failures)
    yield


def _has_scans(tier: str, modality: str) -> bool:
    return tier in PROSTATE_TIERS if modality == PROSTATE else tier != "P"


def _times(method: Method, modality: str) -> list[Row]:
    """Seconds of processor time per scan, and how often a method failed."""
    kinds = {
        "processor seconds per simulated head": [
            s for n, s in method.seconds.items() if n.startswith("head-")
        ],
        "processor seconds per real scan": [
            s for n, s in method.seconds.items() if not n.startswith("head-")
        ],
        "processor seconds to fit or load": [method.fit_seconds],
    }
    rows = [
        summarize(TIME, modality, metric, method.name, seconds, better="lower", scans=len(seconds))
        for metric, seconds in kinds.items()
        if seconds
    ]
    failed = Row(
        tier=TIME,
        modality=modality,
        metric="failed scans, taken as unchanged",
        method=method.name,
        value=float(len(method.failures)),
        spread=0.0,
        n=len(method.seconds),
        better="lower",
        scans_used=len(method.seconds),
    )
    return [*rows, failed]


def report(results: Results, names: Sequence[str], *, native: bool = False) -> str:
    """The table, and what must be known to read it."""
    bounds = [
        f"- {row.tier} {row.modality}, {row.metric}: {number(row.value)} ±{number(row.spread)} for an oracle "
        "that knows the receive field and the rising curve nearest to the truth."
        for row in results.rows
        if row.method == ORACLE and row.metric.endswith("dB")
    ]
    bounds += [
        f"- {row.tier} {row.modality}, {row.metric}: {number(row.value)} ±{number(row.spread)} as {CEILING}."
        for row in results.rows
        if row.method == CEILING
    ]
    empty = [f"- Tier {tier}: no such scans here." for tier in results.empty]
    failed = [f"- {name} failed on {len(scans)} scans." for name, scans in results.failures.items()]
    seconds = ", ".join(f"{name} {spent:.0f} s" for name, spent in results.seconds.items())
    notes = [
        "- Mean ± standard deviation over n measurements, unless the tier says otherwise; ↑ higher is "
        "better, ↓ lower is better, bold is the best of a line.",
        "- Other methods get a brain mask, of simulated scans the true one; ours gets none.",
        f"- Real scans: {RESOLUTION[native]}. Seconds per scan are the processor's, at that size.",
        f"- {splits.SITES_NOTE}",
        *([SITE_PROBE_NOTE] if any(row.metric.startswith("site probe") for row in results.rows) else []),
        *bounds,
        *empty,
        *failed,
        f"- Time of the tiers: {seconds}.",
    ]
    compared = _compared(results.rows)
    # Peers that only one tier has are no methods of the others.
    columns = list(dict.fromkeys([*names, *(row.method for row in compared)]))
    return markdown(compared, columns) + "\n" + "\n".join(notes) + "\n"


def _compared(rows: Sequence[Row]) -> list[Row]:
    """The rows of methods that can be used, which oracle and ceiling cannot."""
    return [row for row in rows if row.method not in (ORACLE, CEILING)]


def _write(results: Results, options: argparse.Namespace, models: dict[str, Path]) -> None:
    """Write all files anew."""
    (options.out / "efficacy.md").write_text(
        report(results, options.methods, native=options.native), encoding="utf-8"
    )
    content: dict[str, Any] = {
        "Heads": list(splits.heads(options.development)),
        "LeftOut": splits.HELD_OUT,
        "Models": {modality: path.name for modality, path in models.items()} or "bundled",
        "Versions": {name: _version(name) for name in PACKAGES} | {"Python": platform.python_version()},
        "Resolution": RESOLUTION[options.native],
        "SecondsByTier": results.seconds,
        "Failures": results.failures,
        "NoSuchScans": results.empty,
        "Rows": [row.to_json() for row in results.rows],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (options.out / "efficacy.json").write_text(text + "\n", encoding="utf-8")
    draw([row for row in _compared(results.rows) if row.tier != TIME], options.out / "efficacy.png")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.efficacy", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("efficacy"), help="folder of the output")
    parser.add_argument("--shared", type=Path, default=shared_folder(), help="folder of scans and label maps")
    parser.add_argument("--tiers", nargs="+", choices=TIERS, default=list(TIERS), help="default: all")
    parser.add_argument(
        "--modality", nargs="+", choices=MODALITIES, default=list(MODALITIES), help="default: all"
    )
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=list(NAMES), help="default: all")
    parser.add_argument("--model", nargs="+", type=Path, default=[], help="weights to use for their modality")
    parser.add_argument("--judges", nargs="+", choices=JUDGES, default=list(JUDGES), help="default: all")
    parser.add_argument("--add", action="store_true", help="keep what OUT has of other tiers")
    parser.add_argument("--development", action="store_true", help="simulate from the heads to choose by")
    parser.add_argument(
        "--native", action="store_true", help="real scans in full resolution, which takes long"
    )
    parser.add_argument(
        "--pairs",
        type=Path,
        help="BIDS dataset of participants scanned twice (tier B; default: data/pairs of --shared)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
