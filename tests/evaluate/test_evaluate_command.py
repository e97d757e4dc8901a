"""`ekd-lite evaluate` and `embed`: what cannot be measured is said first, in order, in words."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ekd_lite.__main__ import main
from ekd_lite.commands import nets
from ekd_lite.evaluate import all_pairs_tpr_at_fpr


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Run the command on embeddings and labels; gives (exit code, lines, error)."""

    def run(rows, labels, *options):
        path = tmp_path / "e.safetensors"
        save_file({"embeddings": rows, "labels": labels}, path)
        code = main(["evaluate", "--source", str(path), *options])
        captured = capsys.readouterr()
        assert "nan" not in captured.out
        return code, captured.out.splitlines(), captured.err.strip()

    return run


def rows_of(num, width=8):
    return torch.randn(num, width, generator=torch.Generator().manual_seed(0))


def test_levels_that_cannot_be_measured_come_first_and_in_order(evaluate):
    rows, labels = rows_of(200), torch.arange(200) // 4
    levels = ["1e-9", "1e-1", "3e-8", "1e-3", "2e-9"]
    for resamples in ("0", "20"):
        code, lines, error = evaluate(rows, labels, "--resamples", resamples, "--fprs", *levels)
        assert (code, error) == (0, "")
        assert [line.split(":")[0] for line in lines[1:]] == [
            *("FPR 1e-09", "FPR 3e-08", "FPR 2e-09"), *("FPR 1e-01", "FPR 1e-03")
        ]  # fmt: skip
        assert all("not measurable with 19,600 impostor pairs" in line for line in lines[1:4])
        tpr = 100 * all_pairs_tpr_at_fpr(rows, labels, [0.1])
        assert f"TPR {float(tpr[0]):6.2f} %" in lines[4]


def test_every_person_may_weigh_the_same(evaluate):
    rows, labels = rows_of(200), (torch.arange(200) ** 0.7).long()  # people of many sizes
    tpr = 100 * all_pairs_tpr_at_fpr(rows, labels, 0.1, by="person")
    assert tpr != 100 * all_pairs_tpr_at_fpr(rows, labels, 0.1)
    for resamples in ("0", "20"):
        options = ("--fprs", "0.1", "--by", "person", "--resamples", resamples)
        _, lines, _ = evaluate(rows, labels, *options)
        assert f"TPR {float(tpr):6.2f} %" in lines[1]


def test_a_collapsed_net_scores_zero(evaluate):
    labels = torch.arange(400) // 4
    _, lines, _ = evaluate(rows_of(1, 512).repeat(400, 1), labels, "--fprs", "0.1", "0.01")
    assert lines[1:] == [f"FPR 1e-0{k}: TPR   0.00 % [0.00, 0.00]" for k in (1, 2)]


@pytest.mark.parametrize(
    ("num", "labels", "options", "message"),
    [
        (3, [0, 0, 0], (), "all images show one person"),
        (3, [0, 1, 2], (), "no two images show one person"),
        (4, [0, 0, 1, 1], (), "none of the FPRs can be measured: the finest is 0.25"),
        (4, [0, 0.5, 1, 1], (), "labels must be whole numbers, got 0.5 at 1"),
        (4, [0, 0, 1], (), "labels"),
        (4, [0, 0, 1, 1], ("--fprs", "nan"), "--fprs takes rates above 0 and up to 1.* got nan"),
        (4, [0, 0, 1, 1], ("--fprs", "0.5", "-1"), "--fprs takes .* got -1"),
        (4, [0, 0, 1, 1], ("--fprs", "1.5"), "got 1.5"),
        (4, [0, 0, 1, 1], ("--fprs", "inf"), "got inf"),
        (4, [0, 0, 1, 1], ("--fprs",), "got none"),
        (4, [0, 0, 1, 1], ("--resamples", "-1"), "--resamples must be 0"),
    ],
)
def test_one_line_says_what_is_wrong(evaluate, num, labels, options, message):
    code, lines, error = evaluate(rows_of(num), torch.tensor(labels), *options)
    assert code == 2
    assert len(error.splitlines()) == 1
    assert not any("TPR" in line for line in lines)
    assert re.search(message, error)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_embeddings_that_are_no_numbers(evaluate, bad):
    rows = rows_of(4)
    rows[2, 1] = bad
    code, lines, error = evaluate(rows, torch.tensor([0, 0, 1, 1]), "--fprs", "0.5")
    assert (code, lines) == (2, [])
    assert "row 2 holds NaN or infinity" in error
    complex_rows = rows_of(4).to(torch.complex64)
    assert "real numbers" in evaluate(complex_rows, torch.tensor([0, 0, 1, 1]))[2]


def test_why_there_is_no_interval(evaluate):
    labels = torch.arange(200) // 4
    _, lines, _ = evaluate(rows_of(200), labels, "--fprs", "1e-4", "--resamples", "20")
    assert lines[1].endswith("no interval: it needs 10 false accepts, and the level allows 1")
    _, lines, _ = evaluate(rows_of(40), torch.arange(40) // 20, "--fprs", "0.5")
    assert lines[1].endswith("no interval: with so few people some resamples cannot show the level")


def test_nothing_is_embedded_in_vain(tmp_path, capsys, monkeypatch):
    """The labels of a set of faces are known before its embeddings are."""
    for person in ("Ann", "Bob"):
        (tmp_path / "faces" / person).mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "faces" / person / "1.png")

    def never(*_, **__):
        raise AssertionError("embedded")

    monkeypatch.setattr(nets, "embed", never)
    net = SimpleNamespace(rows=None, input_size=32)
    monkeypatch.setattr(nets, "open_net", lambda *_, **__: net)

    class Test:
        labels = torch.arange(5)

    monkeypatch.setattr(nets, "load_splits", lambda *_, **__: type("S", (), {"test": Test})())
    assert main(["evaluate", "--source", "run"]) == 2
    assert "no two images show one person" in capsys.readouterr().err
    monkeypatch.setattr(nets, "open_net", never)
    arguments = ["embed", "--model", "run", "--faces", str(tmp_path / "faces"), "--out"]
    assert main([*arguments, str(tmp_path)]) == 2
    assert "is a folder: name a file to write" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main([*arguments, str(tmp_path / "file" / "e.safetensors")]) == 2
    assert "file" in capsys.readouterr().err
