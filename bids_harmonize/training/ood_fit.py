"""Fitting the detector of scans that are out of distribution."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bids_harmonize.imaging.foreground import Foreground
from bids_harmonize.model.bilateral_grid import Cells, splat
from bids_harmonize.model.ood_detector import MAX_DEVIATION, OODDetector, classifier, describe
from bids_harmonize.training.ood_scans import (
    FAMILIAR,
    LabelledScan,
    of_another_person,
    sample_in_distribution,
    sample_ood,
)
from bids_harmonize.training.sources import ReferenceExample

FOLDS, HIDDEN, STEPS_OF_FIT, LEARNING_RATE, DECAY = 4, 32, 300, 3e-3, 0.3
# How often a scan is used, each time as of another person.
PEOPLE = 3
# Noise on the features, in standard deviations: it stands for scanners that the fit does not see.
NOISE = 0.6
# Share of scans in distribution, held out of the fit, whose score is above the threshold. They are odder than
# those of hospitals: of 29 real T1w scans of other scanners and the reference group, none is above it.
FALSE_ALARM_RATE = 0.04


def fit_ood_detector(sources: Sequence[ReferenceExample], *, seed: int, scans: int) -> dict[str, Any]:
    """Fit a detector to scans in and out of distribution; each takes a quarter of a second of a core to draw.

    Every scan that is drawn is used `PEOPLE` times, as of people of other sizes and stored in other ways,
    which costs little.

    Parameters
    ----------
    sources
        The reference group of a model for another body part than the head.
    scans
        How many to draw, half of them in distribution.

    Returns
    -------
    dict
        What a model card stores of it: threshold and weights, and how many scans of each kind were flagged by
        classifiers that had not seen them.
    """

    def draw(index: int) -> tuple[str, Tensor]:
        sample = sample_in_distribution if index < scans // 2 else sample_ood
        rng = np.random.default_rng([seed, index])
        scan = sample(sources, rng)
        return scan.kind, torch.stack([_features(of_another_person(scan, rng)) for _ in range(PEOPLE)])

    # NumPy and SciPy let other threads go on while they compute. Every scan has random numbers of its own.
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        drawn = list(threads.map(draw, range(2 * (scans // 2))))
    kinds = [kind for kind, _ in drawn for _ in range(PEOPLE)]
    features = torch.cat([described for _, described in drawn])
    is_ood = torch.tensor([kind != FAMILIAR for kind in kinds])
    fitted, logits = _cross_validated(features, is_ood, seed)
    limit = float(torch.quantile(logits[~is_ood], 1 - FALSE_ALARM_RATE))
    ood_detector = replace(fitted, threshold=float(torch.sigmoid(torch.tensor(limit))))
    flags: defaultdict[str, list[bool]] = defaultdict(list)
    for kind, logit in zip(kinds, logits.tolist(), strict=True):
        flags[kind].append(logit > limit)
    held_out = {kind: f"{sum(found)} of {len(found)}" for kind, found in sorted(flags.items())}
    return ood_detector.card(held_out)


def _features(scan: LabelledScan) -> Tensor:
    volume = np.ascontiguousarray(scan.volume)
    foreground = Foreground.of(volume, scan.zooms)
    cells = Cells.of_box(foreground.box, volume.shape, scan.zooms)
    return describe(splat(torch.from_numpy(volume), cells, unit=foreground.scale))


def _cross_validated(features: Tensor, is_ood: Tensor, seed: int) -> tuple[OODDetector, Tensor]:
    """The mean of classifiers that each have not seen a part of the scans, and all held-out logits."""
    centre, spread = features.mean(0), features.std(0) + 0.02
    # All that is made of one scan is in one fold.
    order = np.random.default_rng(seed).permutation(len(features) // PEOPLE)
    fold = torch.from_numpy(order % FOLDS).repeat_interleave(PEOPLE)
    logits = torch.zeros(len(features))
    parts = []
    for number in range(FOLDS):
        held_out = fold == number
        part = _fit(((features - centre) / spread)[~held_out], is_ood[~held_out].float(), seed + number)
        parts.append(part.state_dict().values())
        detector = OODDetector(centre=centre, spread=spread, classifier=part, threshold=0.5)
        logits[held_out] = detector.logits(features[held_out])
    first, first_bias, second, second_bias = zip(*parts, strict=True)
    # The classifiers stand side by side in one hidden layer, and their outputs are averaged.
    merged = classifier(
        torch.cat(first),
        torch.cat(first_bias),
        torch.cat(second, dim=1) / FOLDS,
        torch.stack(second_bias).mean(0),
    )
    return OODDetector(centre=centre, spread=spread, classifier=merged, threshold=0.5), logits


def _fit(deviations: Tensor, is_ood: Tensor, seed: int) -> nn.Sequential:
    """One classifier, both classes of equal weight."""
    generator = torch.Generator().manual_seed(seed)
    deviations = deviations.clamp(-MAX_DEVIATION, MAX_DEVIATION)
    network = classifier(
        *_random_layer(deviations.shape[1], HIDDEN, generator), *_random_layer(HIDDEN, 1, generator)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=DECAY)
    weight = torch.where(is_ood > 0, 0.5 / is_ood.mean(), 0.5 / (1 - is_ood.mean()))
    for _ in range(STEPS_OF_FIT):
        noisy = deviations + NOISE * torch.randn(deviations.shape, generator=generator)
        loss = F.binary_cross_entropy_with_logits(network(noisy)[:, 0], is_ood, weight=weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.requires_grad_(False)


def _random_layer(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weights and biases as `nn.Linear` draws them, but from a generator of their own."""
    bound = inputs**-0.5
    weights, biases = (
        (torch.rand(shape, generator=generator) * 2 - 1).mul(bound)
        for shape in ((outputs, inputs), (outputs,))
    )
    return weights, biases
