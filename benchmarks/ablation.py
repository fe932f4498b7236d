"""What each family of alterations and each idea of the training brings, by the same short training each.

Families are added one after the other to trainings from random weights. Ideas are taken away one at a time
from trainings that go on from given weights; who is held out here may have been in the training of those.

Everything is measured on development data: heads 09 and 10, the real sites, and two participants of the
reference group who are held out here besides the one who always is. The result decides which families stay in
`recipe.Recipe`.

    python -m benchmarks.ablation OUT [--steps N] [--start WEIGHTS] [--variants NAME ...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from benchmarks.data import Data
from benchmarks.formatting import markdown_table
from benchmarks.methods import Method, make_methods
from benchmarks.result_rows import Row
from benchmarks.scans import Scan, shared_folder
from benchmarks.splits import TRAINING_HEADS
from benchmarks.tiers import agreement, biology, distribution, held_out, surroundings
from bids_harmonize.commands.train import FIRST_RATE, LATER_RATE
from bids_harmonize.model.harmonizer import Model
from bids_harmonize.model.loading import load_network
from bids_harmonize.model.network import EDIT_ERROR, CurveNetwork
from bids_harmonize.simulation.label_heads import Head
from bids_harmonize.training.candidates import SIMULATED_VOXELS
from bids_harmonize.training.recipe import K_SPACE, SCANNER, TONES, Recipe
from bids_harmonize.training.reference_group import measure_scan
from bids_harmonize.training.schedule import Schedule
from bids_harmonize.training.sources import (
    ReferenceExample,
    SimulatedHead,
    Source,
    reference_examples,
    simulated_heads,
)
from bids_harmonize.training.trainer import train

#: These are held out, so that ordinary participants are measured too; their numbers alone decided.
HELD_OUT_HERE = ("sub-03", "sub-10")
ARTEFACTS = {"Spikes": 0.15, "PhaseError": 0.15}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to train: a recipe, what the loss counts, and how small edits are weakened in the end."""

    recipe: Recipe = field(default_factory=Recipe)
    bias: float = Schedule.bias
    locality: float = Schedule.locality
    edit_error: float = EDIT_ERROR


#: Every variant also has receive fields, noise, skull-stripping and cropping.
FAMILIES: Mapping[str, Variant] = {
    "k-space alone": Variant(recipe=Recipe(frequencies={**K_SPACE, **SCANNER}, simulated=0)),
    "tone curves alone": Variant(recipe=Recipe(frequencies={**TONES, **SCANNER}, simulated=0)),
    "k-space, tone curves": Variant(recipe=Recipe(frequencies={**K_SPACE, **TONES, **SCANNER}, simulated=0)),
    "and signal equations": Variant(recipe=Recipe(simulated=0)),
    "and simulated heads": Variant(),
    "and spikes, phase errors": Variant(recipe=Recipe(frequencies={**Recipe().frequencies, **ARTEFACTS})),
}
IDEAS: Mapping[str, Variant] = {
    "all ideas": Variant(),
    "people alike in their tissues": Variant(recipe=Recipe(personal_spread=0)),
    "people's tissues differ by 4 %": Variant(recipe=Recipe(personal_spread=0.04)),
    "mean errors do not count": Variant(bias=0),
    "no second pass": Variant(recipe=Recipe(second_pass=0)),
    "no price on local curves": Variant(locality=0),
    "small edits as predicted": Variant(edit_error=0),
}
VARIANTS = {**FAMILIES, **IDEAS}
TIERS = (agreement, held_out, distribution, biology, surroundings)
#: Metrics that the table shows, by their tier, and their decimals.
SHOWN: Mapping[tuple[str, str], int] = {
    (agreement.TIER, "agreement inside the brain, dB"): 1,
    (agreement.TIER, "white-matter median, CoV"): 3,
    (agreement.TIER, "grey/white ratio, CoV"): 3,
    (agreement.TIER, "white-grey contrast over range"): 3,
    (held_out.TIER, "unaltered: output to original, dB"): 1,
    (held_out.TIER, "power: output to original, dB"): 1,
    (held_out.TIER, "receive field: output to original, dB"): 1,
    (distribution.TIER, f"{distribution.AS_IT_IS}, mean of new sites"): 3,
    (biology.TIER, "difference between groups kept"): 2,
    (biology.TIER, "difference between protocols left"): 2,
    (surroundings.TIER, "harmonized twice, dB"): 1,
}


@dataclass(frozen=True, kw_only=True)
class DevelopmentData(Data):
    """The data to choose by, with other participants held out."""

    @cached_property
    def held_out(self) -> list[Scan]:
        """The scans of the participants that are held out here."""
        return [scan for scan in self.real.reference if scan.participant in HELD_OUT_HERE]

    @property
    def reference(self) -> list[Scan]:
        """The rest of the group."""
        return [scan for scan in self.real.reference if scan.participant not in HELD_OUT_HERE]


def sources(data: Data) -> tuple[list[ReferenceExample], list[SimulatedHead]]:
    """Reference scans and simulated heads, as the command `train` makes them."""
    group = [measure_scan(scan.name, scan.volume, scan.zooms, data.modality) for scan in data.reference]
    scans = [example for scan in group for example in reference_examples(scan, data.modality)]
    labels = data.shared / "data" / "labels"
    heads = [
        Head.read(labels / f"{name}_dseg.nii.gz", factors)
        for name in TRAINING_HEADS
        for factors in SIMULATED_VOXELS[data.modality]
    ]
    return scans, simulated_heads(heads, scans, data.modality)


def train_variant(
    variant: Variant,
    scans: Sequence[ReferenceExample],
    heads: Sequence[SimulatedHead],
    folder: Path,
    steps: int,
    start: CurveNetwork | None,
) -> CurveNetwork:
    """Train a network from random weights, or from those of `start`."""
    pool: list[Source] = [*scans, *(heads if variant.recipe.simulated else ())]
    rate = FIRST_RATE if start is None else LATER_RATE
    schedule = Schedule(steps=steps, learning_rate=rate, bias=variant.bias, locality=variant.locality)
    network = train(pool, [], folder, schedule, recipe=variant.recipe, start=start).network
    network.edit_error = variant.edit_error
    return network


def as_method(name: str, network: CurveNetwork, modality: str, folder: Path) -> Method:
    """The network as a method of the benchmark: it takes the place of the bundled model's own."""
    model = replace(Model.load(modality, device="cpu"), network=network.eval())
    return Method(name=name, function=lambda scan: model.harmonize(scan.image).voxels, folder=folder)


def measure(methods: Sequence[Method], data: Data) -> list[Row]:
    """The rows that the table shows."""
    rows = [row for tier in TIERS for row in tier.run(methods, data)]
    return [row for row in rows if (row.tier, row.metric) in SHOWN]


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line per variant, mean ± standard deviation."""
    cells = {(row.method, row.tier, row.metric): row for row in rows}
    head = ["variant", *(f"{tier}: {metric}" for tier, metric in SHOWN)]
    body = []
    for method in dict.fromkeys(row.method for row in rows):
        shown = [(cells[method, *key], decimals) for key, decimals in SHOWN.items()]
        body.append([method, *(f"{row.value:.{d}f} ± {row.spread:.{d}f}" for row, d in shown)])
    return markdown_table(head, body)


def main() -> None:
    """Train every variant (a training that was killed is resumed), measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for weights, ablation.md and .json")
    parser.add_argument("--modality", choices=("T1w", "T2w"), default="T1w", help="default: T1w")
    parser.add_argument("--steps", type=int, default=500, help="steps of every training (default: 500)")
    parser.add_argument(
        "--start", type=Path, metavar="WEIGHTS", help="train further from these (default: random weights)"
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        help="default: the families of alterations; with --start, the ideas",
    )
    options = parser.parse_args()
    start = load_network(options.start) if options.start else None
    options.out.mkdir(parents=True, exist_ok=True)
    data = DevelopmentData(shared=shared_folder(), modality=options.modality, development=True)
    scans, heads = sources(data)
    with tempfile.TemporaryDirectory() as folder:
        volumes = Path(folder)
        methods = make_methods(
            ["percentile", "Nyúl"], options.modality, data.reference, options.modality, volumes
        )
        for name in options.variants or (IDEAS if start else FAMILIES):
            print(name, flush=True)
            weights = options.out / f"{options.modality} {name}".replace(" ", "_").replace(",", "")
            network = train_variant(VARIANTS[name], scans, heads, weights, options.steps, start)
            methods.append(as_method(name, network, options.modality, volumes))
        rows = measure(methods, data)
    text = table(rows)
    stem = options.out / f"{'ideas' if start else 'ablation'}_{options.modality}"
    stem.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    record = {"Steps": options.steps, "Rows": [row.to_json() for row in rows]}
    stem.with_suffix(".json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
