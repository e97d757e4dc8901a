"""What a rare group costs: students trained with few dark or few light faces, for chapter 17.

    python studies/group_trials.py data/results/groups.csv

Procedural people are divided by their drawn skin tone at 1/3 and 2/3. Three training sets of 1,000
people have a third of each tone, 5 % dark or 5 % light; the people of one tone are the same ones in
all sets, more or fewer of them. Students are trained alone; alone with the rare people's images
repeated until they are a third of the images of a batch; and under the teacher that ships with the
package, which was trained on people with every tone equally often and has met none of these.

Measured on 450 other people: one global threshold for each net, FPR and TPR within each tone and
across tones, and the TPR of a tone at a threshold of its own (`tpr_own`), with 95 % intervals from
drawing people. Rows "change" are FPR as a factor and TPR as a difference against the students of
the balanced set.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import PackedFaces, SyntheticFaces, cache_faces
from ekd_lite.data.renderer.parameters import identity_names
from ekd_lite.evaluate import embed
from ekd_lite.ops import false_accepts_at
from ekd_lite.train import Teacher, TrainConfig, fit, load_model

TONES = ("light", "medium", "dark")
PARTS = (*TONES, "across")
SETS = {"balanced": (333, 333, 334), "few dark": (475, 475, 50), "few light": (50, 475, 475)}
RUNS = (
    ("balanced", "none"),
    ("few dark", "none"),
    ("balanced", "fitnet"),
    ("few dark", "fitnet"),
    ("few dark", "repeated"),
    ("few dark", "kd"),
    ("few light", "none"),
)
DISTILLED = ("fitnet", "kd")
LEVELS = (1e-2, 1e-3, 1e-4)
SEEDS = (0, 1, 2)
STEPS = 1000
REPEATS = 31  # 62 % of the random half of a batch, 5 % of the half that is balanced by people
DRAWS = 1000
COLUMNS = ("row", "training", "method", "seed", "level", "part")
RATES = ("fpr", "tpr", "tpr_own")
ENDS = ("", "_low", "_high")


class Accepted(NamedTuple):
    """Accepted pairs of a net by the two people, impostor (L, P, P) and genuine (L, P).

    `genuine_own` counts at another threshold: the one that gives a person's *tone* the level.
    """

    impostor: Tensor
    genuine: Tensor
    genuine_own: Tensor


def tone_of(faces: SyntheticFaces) -> Tensor:
    """0, 1 or 2, light to dark, for every person of a set."""
    first = torch.arange(0, len(faces), faces.images_per_identity)
    tone = faces.tables(first)[0][:, identity_names().index("skin_tone")].contiguous()
    return torch.bucketize(tone, torch.tensor([1 / 3, 2 / 3]))


def choose(tones: Tensor, counts: tuple[int, int, int]) -> Tensor:
    """The first so many people of each tone, in their order."""
    people = [(tones == k).nonzero().flatten()[:count] for k, count in enumerate(counts)]
    assert [len(part) for part in people] == list(counts), "the pool is too small"
    return torch.cat(people).sort().values


def training_set(pool: PackedFaces, people: Tensor, repeats: Tensor) -> tuple[PackedFaces, Tensor]:
    """Faces of some people, each image so often, with labels from 0, and their rows in the pool."""
    each = len(pool) // pool.num_identities
    rows = torch.cat(
        [
            (each * person + torch.arange(each)).repeat(int(times))
            for person, times in zip(people, repeats, strict=True)
        ]
    )
    pixels = ((pool.batch(rows) + 1) * 127.5).round().to(torch.uint8)
    labels = torch.searchsorted(people, rows // each)
    return PackedFaces(pixels, labels), rows


def accepted_by_people(embeddings: Tensor, tones: Tensor) -> Accepted:
    """Pairs above each level's threshold, which is set on all impostor pairs together."""
    unit = normalize(embeddings, dim=1)
    num_people = len(tones)
    each = len(unit) // num_people
    cosines = unit @ unit.T
    person = torch.arange(len(unit)) // each
    upper = person[:, None] < person
    tone = tones[person]

    def pass_at(thresholds: list[Tensor]) -> Tensor:
        passed = [(cosines > t).view(num_people, each, num_people, each) for t in thresholds]
        return torch.stack([table.sum(dim=(1, 3)) for table in passed]).double()

    def genuine_of(passed: Tensor) -> Tensor:
        return (passed.diagonal(dim1=1, dim2=2) - each) / 2  # without an image and itself

    def thresholds_of(impostor: Tensor) -> list[Tensor]:
        scores = cosines[impostor].sort().values
        return [scores[-false_accepts_at(level, len(scores)) - 1] for level in LEVELS]

    passed = pass_at(thresholds_of(upper))
    genuine = genuine_of(passed)
    own = genuine.clone()
    for k in range(len(TONES)):
        within = upper & (tone == k) & (tone[:, None] == k)
        at_own = genuine_of(pass_at(thresholds_of(within)))
        own[:, tones == k] = at_own[:, tones == k]
    return Accepted(passed.masked_fill(torch.eye(num_people, dtype=torch.bool), 0), genuine, own)


def rates(accepted: Accepted, tones: Tensor, weights: Tensor, each: int) -> Tensor:
    """FPR, TPR and TPR at the own threshold when person i is drawn weights[i] times, (3, L, 4)."""
    fprs, tprs, owns = [], [], []
    other = 1 - torch.eye(len(tones), dtype=torch.float64)
    for k in range(3):
        w = weights * (tones == k)
        pairs = each**2 * (w @ other @ w)
        fprs.append((accepted.impostor @ w @ w) / pairs)
        genuine_pairs = w.sum() * each * (each - 1) / 2
        tprs.append(accepted.genuine @ w / genuine_pairs)
        owns.append(accepted.genuine_own @ w / genuine_pairs)
    own = [weights * (tones == k) for k in range(3)]
    hits: Tensor = accepted.impostor @ weights @ weights - sum(
        accepted.impostor @ w @ w for w in own
    )
    pairs = each**2 * (weights.sum() ** 2 - sum(w.sum() ** 2 for w in own))
    fprs.append(hits / pairs)
    for rate in (tprs, owns):
        rate.append(torch.full_like(hits, torch.nan))
    return torch.stack([torch.stack(rate, dim=1) for rate in (fprs, tprs, owns)])


def draws_of(num_people: int) -> list[Tensor]:
    """The people as they are, and then drawn anew with replacement, the same for every net."""
    rng = np.random.default_rng(0)
    counts = [np.ones(num_people)] + [
        np.bincount(rng.integers(0, num_people, num_people), minlength=num_people)
        for _ in range(DRAWS)
    ]
    return [torch.from_numpy(count.astype(np.float64)) for count in counts]


def with_ends(samples: Tensor) -> Tensor:
    """Estimate and both ends of the interval, (3, ...), from the set itself and its draws."""
    tails = torch.tensor([0.025, 0.975], dtype=torch.float64)
    return torch.cat([samples[:1], samples[1:].quantile(tails, dim=0)])


def lines(row: str, training: str, method: str, seed: str, table: Tensor) -> Iterator[list[str]]:
    """Lines of the CSV from (1 or 3, 3, L, 4): estimate, or estimate and interval."""
    for m, level in enumerate(LEVELS):
        for k, part in enumerate(PARTS):
            cells = table[:, :, m, k].T  # the rates, each with its ends if it has them
            blank = torch.full((3, 3 - len(table)), torch.nan)
            numbers = torch.cat([cells, blank], dim=1).flatten().tolist()
            text = ["" if np.isnan(x) else f"{x:.4g}" for x in numbers]
            yield [row, training, method, seed, f"{level:.0e}".replace("e-0", "e-"), part, *text]


def main(path: Path, cache: Path = Path(".cache/faces")) -> None:
    """Train and measure everything; runs are written as they come, means at the end."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    drawn = SyntheticFaces(1500, 8, image_size=32, first_identity=12_000)
    pool, pool_tones = cache_faces(drawn, cache, workers=1, progress=False), tone_of(drawn)
    strangers = SyntheticFaces(450, 10, image_size=32, first_identity=6_000)
    test, tones = cache_faces(strangers, cache, workers=1, progress=False), tone_of(strangers)
    teacher = load_model(DEMO_TEACHER).backbone
    targets = embed(teacher, pool)
    draws = draws_of(len(tones))
    samples: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
    with (
        path.open("w", newline="", encoding="utf-8") as file,
        tempfile.TemporaryDirectory() as work,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*COLUMNS, *(f"{rate}{end}" for rate in RATES for end in ENDS)])

        def keep(training: str, method: str, seed: str, net: nn.Module) -> None:
            accepted = accepted_by_people(embed(net, test), tones)
            drawn_rates = torch.stack([rates(accepted, tones, w, 10) for w in draws])
            samples[training, method].append(drawn_rates)
            table.writerows(lines("run", training, method, seed, drawn_rates[:1]))
            file.flush()

        keep("its own", "teacher", "", teacher)
        for seed in SEEDS:
            for training, method in RUNS:
                people = choose(pool_tones, SETS[training])
                rare = pool_tones[people] == TONES.index("dark")
                repeats = torch.where(rare & (method == "repeated"), REPEATS, 1)
                faces, rows = training_set(pool, people, repeats)
                config = TrainConfig(steps=STEPS, seed=seed, device="cpu", checkpoint_every=STEPS)
                told = None
                if method in DISTILLED:
                    config = dataclasses.replace(config, method=method)
                    told = Teacher.from_rows(targets[rows])
                out = Path(work) / f"{training} {method} {seed}"
                model = fit(config, faces, out, teacher=told, progress=False)
                keep(training, method, str(seed), load_model(model).backbone)
        means = {key: torch.stack(runs).mean(dim=0) for key, runs in samples.items()}
        for (training, method), drawn_rates in means.items():
            table.writerows(lines("mean", training, method, "", with_ends(drawn_rates)))
        for (training, method), drawn_rates in means.items():
            if training.startswith("few"):
                base = means["balanced", "fitnet" if method in DISTILLED else "none"]
                factor, difference = drawn_rates[:, :1] / base[:, :1], (drawn_rates - base)[:, 1:]
                change = torch.cat([factor, difference], dim=1)
                table.writerows(lines("change", training, method, "", with_ends(change)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
