"""MobileFaceNet's rows of `studies/real_faces.py`: three tables of `real_faces_tables.py`.

They are made of whatever runs have finished, and can be made again when more have. A row with one
seed has an interval over people alone, with several over seeds and people (`seeds` says which);
all had one teacher, of whom no interval knows. The accuracy on View 1's list of pairs gets an
interval from the same draws of people: a genuine pair counts as often as its person was drawn, an
impostor pair as often as both, and every fold chooses its threshold anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from lfw import Row
from lfw_reference import on_pairs, read_pairs
from real_faces_plan import BARE, PHONE, ROWS, Run

from ekd_lite.evaluate import BootstrapResult, over_runs, paired_difference
from ekd_lite.evaluate.bootstrap import draw_weights
from ekd_lite.evaluate.lfw_grid import ACCURACY_GRID

if TYPE_CHECKING:
    from real_faces_tables import Nets

TEACHER = "SFace"
COUNTS = ("pair", "person")
LEVELS = (1e-2, 1e-3, 1e-4)
TPR = ("tpr@1e-2", "tpr@1e-3", "tpr@1e-4")
PAIRS = ("pairs_accuracy",)
OTHERS = (BARE, "fitnet", "alone")
DRAWS = 1000


def percent(value: torch.Tensor | float) -> str:
    """A share in percent with two decimals."""
    return f"{100 * float(value):.2f}"


def cells(result: Sequence[torch.Tensor], names: Sequence[str] = TPR) -> Row:
    """Estimate and interval of every name."""
    row: Row = {}
    for name, *ends in zip(names, *result, strict=True):
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), map(percent, ends), strict=True))
    return row


def ends_of(result: BootstrapResult) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Estimate, low and high end."""
    return result.estimate, result.low, result.high


def phones(nets: Nets) -> dict[tuple[int, str], list[Run]]:
    """MobileFaceNet's seeds by size and row, in the table's order; not those of the long runs."""
    found = defaultdict(list)
    for run in nets.runs:
        if run.backbone == PHONE and not run.recipe:
            found[run.size, run.row].append(run)
    order = list(ROWS)
    return {key: found[key] for key in sorted(found, key=lambda key: (key[0], order.index(key[1])))}


def mean_of(results: Sequence[BootstrapResult]) -> BootstrapResult:
    """The mean over seeds with their draws; a single seed as it is, over people alone."""
    return over_runs(results) if len(results) > 1 else results[0]


def difference_of(
    first: Sequence[BootstrapResult], second: Sequence[BootstrapResult]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """First minus second over the same draws, results in the same order of seeds."""
    if len(first) > 1:
        return paired_difference(first, second, runs=[0] * len(first))
    return paired_difference(first[0], second[0])


def head(size: int, row: str, by: str, seeds: int) -> Row:
    """The first columns."""
    who = {"row": row, "backbone": PHONE, "size": str(size)}
    return who | {"by": by, "seeds": str(seeds)}


def phone_means(nets: Nets) -> Iterator[Row]:
    """A line for every row and size, and the teacher's."""
    for by in COUNTS:
        line = {"row": TEACHER, "backbone": "", "size": "112", "by": by, "seeds": "0"}
        line |= cells(ends_of(nets.result(None, by)))
        yield line | cells(ends_of(pairs_result(nets, None)), PAIRS)
        for (size, row), runs in phones(nets).items():
            result = mean_of([nets.result(run, by) for run in runs])
            listed = mean_of([pairs_result(nets, run) for run in runs])
            line = head(size, row, by, len(runs)) | cells(ends_of(result))
            yield line | cells(ends_of(listed), PAIRS)


def phone_gains(nets: Nets) -> Iterator[Row]:
    """Differences of rows of one size, over the seeds that both have and the same draws."""
    found = {key: {run.seed: run for run in runs} for key, runs in phones(nets).items()}
    for by in COUNTS:
        for other in OTHERS:
            for (size, row), mine in found.items():
                theirs = found.get((size, other), {})
                seeds = sorted(mine.keys() & theirs.keys())
                if row == other or not seeds:
                    continue
                sides = [[runs[seed] for seed in seeds] for runs in (mine, theirs)]
                first, second = ([nets.result(run, by) for run in side] for side in sides)
                line = head(size, row, by, len(seeds)) | {"minus": other}
                line |= cells(difference_of(first, second))
                first, second = ([pairs_result(nets, run) for run in side] for side in sides)
                yield line | cells(difference_of(first, second), PAIRS)


def pairs_result(nets: Nets, run: Run | None) -> BootstrapResult:
    """Accuracy on View 1's list of test pairs, and in every draw of people."""
    key = f"pairs of {run.name if run else TEACHER}"
    if key not in nets.kept:
        number = {file: i for i, file in enumerate(nets.test.files)}
        path = nets.data / "lfw_pairs_devtest.csv"
        scores = on_pairs(path, number, nets.rows(run), None)[0].scores
        pairs, labels = read_pairs(path, number), nets.test.images.labels
        people = torch.stack([labels[pairs.left], labels[pairs.right]]).numpy()
        is_genuine = pairs.is_genuine.bool().numpy()
        drawn = np.stack(draw_weights(nets.test.images.num_identities, DRAWS, 0)).astype(float)
        weights = drawn[:, people[0]] * np.where(is_genuine, 1, drawn[:, people[1]])
        found = accuracies(2 - 2 * scores.numpy(), is_genuine, pairs.folds.numpy(), weights)
        samples = torch.from_numpy(found[1:, None])
        low, high = samples.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
        estimate = torch.from_numpy(found[:1])
        nets.kept[key] = BootstrapResult((1.0,), estimate, low, high, samples)
    return nets.kept[key]


def accuracies(
    distances: np.ndarray, is_genuine: np.ndarray, folds: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The ten-fold accuracy of `verification_accuracy` for every row of weights of pairs, (R,)."""
    right = (distances[:, None] < ACCURACY_GRID) == is_genuine[:, None]
    own = [folds == fold for fold in np.unique(folds)]
    counts = np.stack([weights[:, fold] @ right[fold].astype(float) for fold in own])
    best = (counts.sum(0) - counts).argmax(2)  # on the other folds, the first of equals
    reached = np.take_along_axis(counts, best[:, :, None], axis=2)[:, :, 0]
    totals = np.stack([weights[:, fold].sum(1) for fold in own])
    shares = np.divide(reached, totals, out=np.full(totals.shape, np.nan), where=totals > 0)
    return np.asarray(np.nanmean(shares, axis=0))  # a fold of which nobody was drawn says nothing
