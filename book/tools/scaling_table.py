"""Write the tables of book/scaling.md; --check only compares.

Predictions come from `ekd_lite.experiments.cost`, what was measured from benchmarks/baseline.json.

python book/tools/scaling_table.py [--check]
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from ekd_lite.experiments import Machine, PlannedRun

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "book" / "scaling.md"
BASELINE = ROOT / "benchmarks" / "baseline.json"
# From the EKD paper's Table 5, 64 images a process: 0.068 s for the student alone, 0.147 s with
# EKD's teacher (METHODS 1.6). Which GPU it was is not known.
STUDENT = 6 * 221_161_984 * 64 / 0.068
DENSE = 2 * 6_296_485_888 * 64 / (0.147 - 0.068)
MACHINE = Machine(student=STUDENT, dense=DENSE)
STEPS, PEOPLE = 591_344, 85_742
JOBS = {
    "MS1MV2, 1 GPU": PlannedRun(STEPS, 512, 1, PEOPLE),
    "MS1MV2, 1 GPU, teacher cached": PlannedRun(STEPS, 512, 1, PEOPLE, teacher_macs=0),
    "MS1MV2, 8 GPUs, whole head on each": PlannedRun(STEPS, 64, 8, PEOPLE, is_split=False),
    "MS1MV2, 8 GPUs, split": PlannedRun(STEPS, 64, 8, PEOPLE),
    "2 M people, 8 GPUs, whole head on each": PlannedRun(STEPS, 64, 8, 2_000_000, is_split=False),
    "2 M people, 8 GPUs, split": PlannedRun(STEPS, 64, 8, 2_000_000),
    "2 M people, 8 GPUs, split, a tenth": PlannedRun(STEPS, 64, 8, 2_000_000, sample_rate=0.1),
}


def rates() -> str:
    """The two rates as a sentence."""
    return (
        f"They give {STUDENT / 1e12:.1f} TFLOP/s for the student's training and "
        f"{DENSE / 1e12:.1f} TFLOP/s for the teacher's inference, which is also taken for the head "
        "and the pairs."
    )


def times() -> str:
    """Milliseconds of a step, hours of the run."""
    lines = [
        "| run | student | teacher | head | pairs | a step | the run |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, job in JOBS.items():
        parts = {part: 1000 * seconds for part, seconds in job.seconds(MACHINE).items()}
        cells = [f"{parts[part]:.1f}" for part in ("student", "teacher", "head", "pairs")]
        total = f"{sum(parts.values()):.0f} ms | {job.hours(MACHINE):.0f} h"
        lines.append(f"| {name} | {' | '.join(cells)} | {total} |")
    return "\n".join(lines)


def memory() -> str:
    """GiB of a process, MB sent."""
    lines = [
        "| run | backbone | prototypes | logits | pairs | sent a step |",
        "|---|---|---|---|---|---|",
    ]
    for name, job in JOBS.items():
        parts = job.bytes()
        cells = [f"{parts[part] / 2**30:.2f}" for part in ("backbone", "prototypes", "logits")]
        cells += [f"{parts['pairs'] / 2**20:.0f} MiB", f"{job.sent() / 1e6:.0f} MB"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


NEIGHBOURS = ("24k", "48k", "96k")
MS1MV2 = 5_822_653  # images
BLOCK = 68  # batches for which the rows are read once, by default

# part on the page: rows of the baseline, by item and size
MEASURED = {
    "EKD": [("ekd", f"N={n}") for n in (64, 512, 2048)],
    "fine EKD": [("ekd_fine", "N=512")],
    "SP": [("sp", f"N={n}") for n in (64, 512, 4096)],
    "CCKD": [("cckd", f"N={n}") for n in (64, 512, 4096)],
    "DarkRank": [("darkrank", f"N={n}") for n in (64, 512, 4096)],
    "RKD": [("rkd", f"N={n}") for n in (64, 256)],
    "head, closed form": [("arcface, closed form", f"C={c}") for c in ("10k", "85k", "360k")],
    "head, a tenth, sparse": [("arcface, a tenth", f"C={c}") for c in ("10k", "85k", "360k")],
    "head in fit": [("arcface in fit", f"C={c}") for c in ("20k", "85k")],
    "a tenth in fit, with AdamW": [("a tenth in fit", f"C={c}") for c in ("20k", "85k")],
    "batch of indices": [("sampler", f"{n} people") for n in ("10k", "85k", "360k", "2 M")],
    "gallery EKD, rows in a file": [("gallery from a file", f"G={g}") for g in ("24k", "240k")],
    "partners without labels": [("neighbours, first batch", f"{n} x 512") for n in NEIGHBOURS],
    "TPR over all pairs": [("all pairs", f"M={m}") for m in ("10k", "50k")],
    "TPR from scores": [("TPR from scores", "15.7 M")],
    "the nearest point": [("TPR from scores, nearest", "15.7 M")],
    "1:N search": [("1:N search", "2k in 10k")],
    "LFW, ten folds": [("LFW ten folds", "6000 pairs")],
    "IJB pooling": [("IJB pooling", "469k images")],
    "JPEG files": [("JPEG files", "128 images")],
    "RecordIO": [("RecordIO", "128 images")],
    "both views of JPEG files": [("both views of JPEG files", "64 images")],
    "embed into one array": [("embed into one array", "32k x 512")],
    "step with FitNet": [("student's step, fitnet", "N=96")],
    "step with KD": [("student's step, kd", "N=96")],
    "step with EKD": [("student's step, ekd", "N=96")],
    "step with fine EKD": [("student's step, ekd_fine", "N=96")],
    "the demo": [("demo", "2000 + 15 x 1500 steps")],
}


def measured(rows: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Ratios and memory of the baseline."""
    lines = [
        "| part | size | plain formula / ours | ours / bound | MB, ours | plain |",
        "|---|---|---|---|---|---|",
    ]
    for part, keys in MEASURED.items():
        for key in keys:
            row = rows[key]
            ratios = [row["ratios"].get(name) for name in ("peer/ours", "ours/bound")]
            memory = [row["mb"].get(name) for name in ("ours", "peer")]
            cells = ["" if x is None else f"{x:.2f}" if x < 10 else f"{x:.0f}" for x in ratios]
            if "products" in row["ms"]:
                cells[1] += f" ({row['ms']['ours'] / row['ms']['products']:.2f})"
            cells += ["" if x is None else f"{x:.0f}" for x in memory]
            lines.append(f"| {part} | {key[1]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ranks(rows: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Two processes beside one."""
    lines = [
        "| a step of | 2 processes, 96 images each | 1, 96 images | 1, 192 images | speed-up |",
        "|---|---|---|---|---|",
    ]
    for (item, _), row in rows.items():
        name = item.removeprefix("2 processes, ")
        if name != item:
            ms = [f"{row['ms'][variant]:.0f} ms" for variant in ("ours", "bound", "peer")]
            lines.append(f"| {name} | {' | '.join(ms)} | {row['ratios']['peer/ours']:.2f} |")
    return "\n".join(lines)


def tables(rows: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Steps under methods with a table of 85,742 people, with and without copies of it."""
    lines = [
        "| method | processes | CPU ms | all copied and sent | peak MB | all copied and sent |",
        "|---|---|---|---|---|---|",
    ]
    for (item, size), row in rows.items():
        if size.startswith("C=85k, ") and size.endswith(("process", "processes")):
            cells = [f"{row[kind][who]:.0f}" for kind in ("ms", "mb") for who in ("ours", "peer")]
            method = item.removeprefix("student's step, ")
            lines.append(f"| {method} | {size.split()[1]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rows_of_a_set(rows: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Losses and batches that look at the teacher's rows of the whole set, and how they grow."""
    most = NEIGHBOURS[-1]
    first = rows["neighbours, first batch", f"{most} x 512"]["ms"]["ours"] / 1000
    later = rows["neighbours, later batch", f"{most} x 512"]["ms"]["ours"]
    whole = first * MS1MV2 / (1000 * int(most.removesuffix("k")))
    mb = rows["gallery from a file", "G=240k"]["mb"]
    return (
        f"Of 240,000 rows (469 MiB) a process that maps the file holds {mb['ours']:.0f} MB of its "
        f"own after a step of gallery EKD, one that has read it {mb['peer']:.0f} MB. "
        f"`NeighbourSampler` takes {first:.2f} s for the first of {BLOCK} batches with "
        f"{most[:-1]},000 rows, and {later:.2f} ms for each of the others: "
        f"{1000 * first / BLOCK:.0f} ms a batch. In proportion, as the three sizes grow, the "
        f"{MS1MV2:,} rows of MS1MV2 would take {whole:.0f} s, {1000 * whole / BLOCK:,.0f} ms a "
        "batch, on one thread."
    )


def long_run(rows: dict[tuple[str, str], dict[str, Any]]) -> str:
    """What a run holds more at its end."""
    row = rows["memory of a run", "steps 500 to 2000"]
    return (
        "A run of the tiny student with FitNet and EKD, 24 images a batch, holds "
        f"{row['note']}: {row['mb']['ours']:.1f} MB more after 1,500 steps."
    )


def fill(text: str) -> str:
    """The page with its marked parts made anew."""
    found = json.loads(BASELINE.read_text(encoding="utf-8"))["rows"]
    rows = {(row["item"], row["size"]): row for row in found}
    parts = {
        "rates": rates(),
        "times": times(),
        "memory": memory(),
        "measured": measured(rows),
        "rows": rows_of_a_set(rows),
        "long": long_run(rows),
        "ranks": ranks(rows),
        "tables": tables(rows),
    }
    for name, made in parts.items():
        begin, end = f"% begin {name}\n", f"% end {name}"
        text, count = re.subn(
            re.escape(begin) + ".*?" + re.escape(end),
            f"{begin}\n{made}\n\n{end}".replace("\\", r"\\"),
            text,
            flags=re.DOTALL,
        )
        if count != 1:
            raise SystemExit(f"{PAGE}: expected one part {name!r}, found {count}")
    return text


def main() -> int:
    """Write or check."""
    before = PAGE.read_text(encoding="utf-8")
    after = fill(before)
    if "--check" in sys.argv[1:]:
        if before != after:
            print(f"{PAGE} is not what book/tools/scaling_table.py writes: run it", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
