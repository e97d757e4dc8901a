"""`make gpu` in its dry form: all of it runs, on a CPU; and what is wrong gets into the table."""

import csv
import sys

import pytest
import torch

from benchmarks import gpu
from benchmarks.comparing import deviation
from benchmarks.gpu_checks import Check, all_checks
from benchmarks.gpu_loops import peer_task, training_loops
from benchmarks.gpu_peers import PEERS, group_of_one
from ekd_lite.distill import DISTILLERS
from ekd_lite.heads import HEADS

CPU = torch.device("cpu")


def test_the_dry_form_runs_everything(tmp_path, capsys):
    path = tmp_path / "gpu.csv"
    assert gpu.main(["--dry", "--out", str(path)]) == 0
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["name"] for row in rows if row["kind"] == "check"] == [c.name for c in all_checks()]
    speeds = {row["name"]: float(row["value"]) for row in rows if row["kind"] == "rate"}
    assert len(speeds) == 12 and min(speeds.values()) > 0
    assert {row["result"] for row in rows} == {"ok"}
    assert "not ok: none" in capsys.readouterr().out


def test_every_loss_and_head_is_compared():
    names = {check.name for check in all_checks()}
    assert {f"loss {name}" for name in DISTILLERS} | {f"head {name}" for name in HEADS} < names


@pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs")
@pytest.mark.parametrize("method", ["fitnet", "ekd"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_bare_loop_learns_what_ours_learns(method, precision):
    """Else their speeds would not be worth comparing. At step 0 neither has a margin."""
    loops = training_loops("mobilefacenet", method, precision, CPU, 12, True)
    states = {which: _state_of(step) for which, step in loops.items()}
    states["bare"].head.margin = 0.0
    for group in states["bare"].optimizer.param_groups:
        group["lr"] = 3e-3 / 10_000  # of the first step of the warm-up
    for step in loops.values():
        step()
    weights = [torch.cat([p.detach().flatten() for p in s.backbone.parameters()])
               for s in states.values()]  # fmt: skip
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


def _state_of(step):
    cells = dict(zip(step.__code__.co_freevars, step.__closure__, strict=True))
    return cells["ours" if "ours" in cells else "bare"].cell_contents


LOSSES = """
import torch
class {name}(torch.nn.Module):
    def __init__(self, *numbers): super().__init__(); self.numbers = numbers
    def forward(self, logits, labels): return logits * self.numbers[0]
"""
PARTIAL_FC = """
import torch
class PartialFC_V2(torch.nn.Module):
    def __init__(self, margin, width, people, rate, fp16):
        super().__init__()
        assert torch.distributed.get_world_size() == 1
        self.margin, self.weight = margin, torch.nn.Parameter(torch.randn(people, width))
    def forward(self, embeddings, labels):
        logits = self.margin(embeddings @ self.weight.T, labels)
        return torch.nn.functional.cross_entropy(logits, labels)
"""
ARCFACE = """
import torch
from torchkit.helper import product
class ArcFace(torch.nn.Module):
    def __init__(self, width, people, scale, margin):
        super().__init__()
        self.kernel = torch.nn.Parameter(torch.randn(width, people))
    def forward(self, embeddings, labels):
        logits = product(embeddings, self.kernel)
        return logits, logits
"""
DISTILL = """
import torch
class {name}(torch.nn.MSELoss):
    def forward(self, student, teacher, *labels): return super().forward(student, teacher)
"""


@pytest.fixture
def checkouts(tmp_path):
    """Folders of the names that the two projects have, with a few lines of ours in them."""
    files = {
        "insightface/recognition/arcface_torch/losses.py": LOSSES.format(name="CombinedMarginLoss"),
        "insightface/recognition/arcface_torch/partial_fc_v2.py": PARTIAL_FC,
        "TFace/recognition/torchkit/head/localfc/arcface.py": ARCFACE,
        "TFace/recognition/torchkit/helper.py": "def product(a, b): return a @ b",
        "TFace/recognition/tasks/ekd/distillation/ekd.py": DISTILL.format(name="EKD"),
        "TFace/recognition/tasks/ekd/distillation/fitnet.py": DISTILL.format(name="HintLoss"),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {name: tmp_path / name for name in PEERS}


def test_loops_of_peers_run_beside_ours(checkouts, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "all_checks", lambda: iter([]))
    monkeypatch.setattr(gpu, "NETS", ("mobilefacenet",))
    out = tmp_path / "gpu.csv"
    options = [str(x) for n in PEERS for x in (PEERS[n].option, checkouts[n])]
    before = set(sys.modules), list(sys.path)
    assert gpu.main(["--dry", "--out", str(out), *options]) == 0
    rows = [row for row in csv.DictReader(out.read_text().splitlines()) if row["kind"] == "peer"]
    assert [row["name"] for row in rows] == [
        f"mobilefacenet, {method}, {precision}, {name}"
        for name, peer in PEERS.items()
        for precision in gpu.PRECISIONS
        for method in peer.methods
    ]
    assert all(float(row["value"]) > 0 and float(row["bound"]) > 0 for row in rows)
    assert "not compared" not in capsys.readouterr().out
    assert sys.path == before[1]
    assert not {"losses", "torchkit.helper", "distillation"} & (set(sys.modules) - before[0])
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("name", "method"), [("insightface", "none"), ("TFace", "ekd")])
def test_a_peers_step_trains_its_net(checkouts, name, method):
    with group_of_one(CPU):
        task = peer_task("mobilefacenet", method, "float32", CPU, 8, True)
        step = PEERS[name].step(checkouts[name], task)
        before = [p.detach().clone() for p in task.net.parameters()]
        step()
    assert all(not torch.equal(a, b) for a, b in zip(before, task.net.parameters(), strict=True))


def test_without_a_checkout_it_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "all_checks", lambda: iter([]))
    monkeypatch.setattr(gpu, "rates", lambda: iter([("mobilefacenet", "none", "float32")]))
    assert gpu.main(["--dry"]) == 0
    assert (
        "not compared with TFace: --tface PATH names a checkout of github.com/Tencent/TFace"
        in capsys.readouterr().out
    )
    assert gpu.main(["--dry", "--insightface", str(tmp_path / "nothing")]) == 1
    assert "is not there: is the path that of a checkout?" in capsys.readouterr().out


def test_what_is_wrong_is_said(monkeypatch, tmp_path, capsys):
    def breaks(device, dry):
        raise RuntimeError("no kernel\nfor this")

    checks = [
        Check("good", lambda device, dry: 0.5, 1.0),
        Check("far", lambda device, dry: 2.0, 1.0),
        Check("nan", lambda device, dry: float("nan"), 1.0),
        Check("broken", breaks, 1.0),
    ]
    monkeypatch.setattr(gpu, "all_checks", lambda: iter(checks))
    monkeypatch.setattr(gpu, "rates", lambda: iter([]))
    path = tmp_path / "gpu.csv"
    assert gpu.main(["--dry", "--out", str(path)]) == 1
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["result"] for row in rows] == [
        "ok", "too far off", "too far off", "RuntimeError: no kernel",
    ]  # fmt: skip
    assert "not ok: far, nan, broken" in capsys.readouterr().out


def test_nothing_is_begun_when_time_is_over(monkeypatch, tmp_path):
    path = tmp_path / "gpu.csv"
    assert gpu.main(["--dry", "--minutes", "0.1", "--out", str(path)]) == 1
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert {row["result"] for row in rows} == {"not run: no time left"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_without_a_gpu_nothing_is_written(capsys):
    assert gpu.main([]) == 2
    assert "no CUDA GPU here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([1.0, float("nan")], [1.0, 2.0], float("inf")),
        ([1.0], [1.0, 2.0], float("inf")),
    ],
)
def test_deviation(found, wanted, expected):
    assert deviation([torch.tensor(found)], [torch.tensor(wanted)]) == expected
