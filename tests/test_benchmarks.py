"""The benchmarks run, time what they say, and mark what has become slower."""

import dataclasses
import inspect
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import memory, teacher_rows
from benchmarks.__main__ import BENCHES, compare
from benchmarks.losses import PAIRWISE, make_batch
from benchmarks.runs import CASES, launch, time_step, time_tables
from benchmarks.timing import interleave, products
from ekd_lite.__main__ import main
from ekd_lite.commands.bench import Bench
from ekd_lite.train import fit

pytestmark = pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs")


def test_a_slower_variant_takes_longer():
    """Ten times as long asleep; a busy machine adds some milliseconds to both."""
    found = interleave(
        {"fast": lambda: time.sleep(0.02), "slow": lambda: time.sleep(0.2)}, repeats=3
    )
    assert 2 < found["slow"] / found["fast"] < 11


@pytest.mark.parametrize("macs", [1e7, 3e9])
def test_products_are_as_much_arithmetic_as_was_asked_for(macs):
    made = products(macs)()
    assert len(made) * len(made[0]) ** 3 == pytest.approx(macs, rel=0.1)


@pytest.mark.starts_process
def test_steps_of_several_processes_are_timed():
    """The first of two processes tells; nothing hangs."""
    assert launch("alone", 2, 8) > 0.1


@pytest.mark.parametrize("case", [name for name in CASES if "20k" not in name])
def test_every_case_can_be_timed_in_one_process(case):
    assert time_step(case, 16) > 0.1


@pytest.mark.parametrize("method", ["adadistill", "margin", "thkd"])
def test_steps_with_tables_are_timed_with_and_without_copies(method):
    found = time_tables(method, 16, people=50)
    assert found["ms"].keys() == {"ours", "peer"}
    assert min(found["ms"].values()) > 0.1


MEMORY = """
import json, torch
from benchmarks.timing import peak_mb
kept = [torch.ones(1 << 14) for _ in range(1600)]
kept = kept[-1:]  # 100 MB in pieces below this one are free, and still held by the process
print(json.dumps(peak_mb({
    "large": lambda: torch.ones(16 << 20).sum(),
    "pieces": lambda: sum(x.sum() for x in [torch.ones(1 << 14) for _ in range(800)]),
    "small": lambda: torch.ones(4).sum(),
})))
"""


@pytest.mark.starts_process
def test_memory_is_what_a_variant_needs():
    """In a process of its own: here the memory of other tests comes and goes."""
    root = Path(__file__).parent.parent
    output = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=root, capture_output=True, text=True, check=True
    )
    found = json.loads(output.stdout)
    if not found:
        pytest.skip("this system does not tell")
    assert 55 < found["large"] < 80
    assert 40 < found["pieces"] < 65
    assert found["small"] < 5


@pytest.mark.parametrize("name", [name for name, entry in PAIRWISE.items() if entry[1] is not None])
def test_the_plain_formula_gives_what_ours_gives(name):
    """Else the two would not be worth comparing. EKD's levels must be those of one batch."""
    ours, plain, *_ = PAIRWISE[name]
    student, teacher, labels = make_batch(64)
    if name == "ekd":
        ours, plain = type(ours)(momentum=1.0, mode="official"), type(plain)(momentum=1.0)
    values = [loss(student, teacher, labels) for loss in (ours, plain)]
    torch.testing.assert_close(*values, rtol=2e-3, atol=1e-6)
    gradients = [torch.autograd.grad(value, student)[0] for value in values]
    torch.testing.assert_close(*gradients, rtol=2e-2, atol=2e-3 * gradients[0].abs().max().item())


def test_a_ratio_worse_by_a_fifth_is_marked():
    before = {"a": {"peer/ours": 5.0, "ours/bound": 1.0}, "b": {"ours/bound": 2.0}}
    now = {"a": {"peer/ours": 4.0, "ours/bound": 1.1}, "b": {"ours/bound": 2.5}, "c": {}}
    assert compare(now, before) == [
        "a: peer/ours 5.00 before, 4.00 now",
        "b: ours/bound 2.00 before, 2.50 now",
    ]
    assert not compare(before, before)


@pytest.mark.starts_process
def test_the_command_writes_and_compares(tmp_path, capsys):
    file = tmp_path / "now.json"
    assert main(["bench", "lfw", "--quick", "--json", str(file)]) == 0
    kept = json.loads(file.read_text())
    assert kept["rows"][0]["item"] == "LFW ten folds"
    assert kept["about"]["torch"] == torch.__version__
    for row in kept["rows"]:
        row["ratios"]["peer/ours"] *= 100
    file.write_text(json.dumps(kept))
    with pytest.raises(SystemExit) as ended:
        main(["bench", "lfw", "--quick", "--compare", str(file)])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "worse than before" in said and "another clock" not in said
    with pytest.raises(SystemExit):
        main(["bench", "lfw", "--quick", "--cpu", "--compare", str(file)])
    expected = "taken by another clock or number of threads then: LFW ten folds 6000 pairs"
    assert expected in capsys.readouterr().out


def test_an_unknown_name_is_told(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "lwf"])
    assert "unknown: lwf" in capsys.readouterr().err


def test_rows_of_one_person_are_alike():
    rows, _ = teacher_rows.some_rows(2000)
    cosines = torch.nn.functional.cosine_similarity(rows[:-1:2], rows[1::2])
    assert 0.65 < float(cosines.mean()) < 0.75


OWN = """
import json, sys
from pathlib import Path
import numpy as np
from benchmarks.teacher_rows import own_mb, some_rows
path = Path(sys.argv[1]) / "rows.npy"
rows, labels = some_rows(20_000)  # 41 MB
np.save(path, rows.numpy())
print(json.dumps([own_mb(path, labels, mapped=mapped) for mapped in (True, False)]))
"""


@pytest.mark.starts_process
def test_rows_of_a_mapped_file_are_not_the_process_s_own(tmp_path):
    """In a process of its own: here the memory of other tests comes and goes."""
    root = Path(__file__).parent.parent
    output = subprocess.run(
        [sys.executable, "-c", OWN, tmp_path], cwd=root, capture_output=True, text=True, check=True
    )
    held = json.loads(output.stdout)
    if None in held:
        pytest.skip("this system does not tell")
    assert held[0] < 15 < 25 < held[1], held


def test_neighbours_are_timed_and_carried_to_millions(monkeypatch):
    some = teacher_rows.some_rows
    monkeypatch.setattr(teacher_rows, "some_rows", lambda count: some(2400))
    monkeypatch.setattr(teacher_rows, "MS1MV2", 24_000 * 100)
    first, later = teacher_rows.bench_neighbours(quick=True)
    assert first.ms["ours"] > first.ms["bound"] / 2 and later.ms["ours"] < first.ms["ours"]
    seconds = 100 * first.ms["ours"] / 1000
    assert f"once in 68 batches; in proportion {seconds:.0f} s" in first.note


def test_the_memory_of_a_run_is_read_at_two_steps(monkeypatch):
    """A run that keeps 64 MB between the two shows it: so much is never taken from freed memory."""
    kept = []

    def leaking(*args, on_step, **options):
        def step(state, metrics):
            if state.step == 3:
                kept.append(torch.ones(64 << 18))
            on_step(state, metrics)

        return fit(*args, on_step=step, **options)

    monkeypatch.setattr("benchmarks.memory.fit", leaking)
    held = memory.held_at((2, 4))
    if not held:
        pytest.skip("this system does not tell")
    assert len(held) == 2 and 55 < held[1] - held[0] < 90


def test_the_command_passes_every_option_on_and_names_every_bench(monkeypatch):
    given = []
    monkeypatch.setattr("benchmarks.__main__.main", lambda arguments: given.extend(arguments))
    values: dict[str, Any] = {
        "names": ("fit",),
        "quick": True,
        "cpu": True,
        "only": ("a tenth in fit", "N=64"),
    }
    values |= {"json": Path("a"), "compare": Path("b"), "threads": 2}
    assert values.keys() == {field.name for field in dataclasses.fields(Bench)}
    Bench(**values).run()
    told = ["fit", "--quick", "--cpu", "--only=a tenth in fit", "--only=N=64"]
    assert given == [*told, "--json", "a", "--compare", "b", "--threads", "2"]
    source = " ".join(inspect.getsource(Bench).split())
    assert f"Which: {', '.join(BENCHES)}; all if left out." in source


def test_every_bench_says_what_it_times():
    assert all(bench.__doc__ for bench in BENCHES.values())
