"""The tables of MobileFaceNet on real faces, from made-up embeddings: nothing is trained."""

import csv
import dataclasses
import shutil
from typing import Any

import numpy as np
import pytest
import torch

from ekd_lite.evaluate import (
    all_pairs_tpr_at_fpr,
    group_rates,
    over_runs,
    paired_difference,
    verification_accuracy,
)
from ekd_lite.export import export_onnx
from ekd_lite.models import build_backbone, profile_backbone
from tests.oracles.seeds import draws_over_seeds
from tests.studies.conftest import module

lfw, plan, tables = (module(name) for name in ("lfw", "real_faces_plan", "real_faces_tables"))
phone, grouped, cost, long = (
    module(f"real_faces_{name}") for name in ("phone", "groups", "cost", "long")
)
DONE = {"alone": (0, 1), plan.BARE: (0, 1), "fitnet": (1,)}  # row: seeds, at 64 pixels


@pytest.fixture
def people():
    """A third are for the test: so many that no draw is without a group."""
    return 99


@pytest.fixture
def nets(data, tmp_path, monkeypatch):
    """Five nets at 64 pixels and one at 112, whose rows are the people's with noise."""
    for each in (tables, phone, long):
        monkeypatch.setattr(each, "LEVELS", (0.5, 0.4, 0.3))  # that so few people can show
    monkeypatch.setattr(phone, "DRAWS", 200)
    monkeypatch.setattr(grouped, "DRAWS", 200)
    monkeypatch.setattr(grouped, "FAIL_AT", 0.3)
    with (data / "lfw_pairs_devtest.csv").open("w", newline="") as file:
        people = [k for k in range(9, 99, 6) if k % 4] * 2
        pairs = [(f"p{k:02}/0.png", f"p{k:02}/1.png", 1, 0) for k in people]
        pairs += [(f"p{k:02}/0.png", f"p{k - 6:02}/0.png", 0, 0) for k in people]
        csv.writer(file).writerows([("file1", "file2", "is_genuine", "fold"), *pairs])
    runs = [plan.Run(row, seed, plan.PHONE, steps=3) for row, s in DONE.items() for seed in s]
    runs.append(plan.Run(plan.BARE, 0, plan.PHONE, 112, steps=3))
    runs.append(plan.Run("fitnet", 2, plan.PHONE, steps=3))  # not done
    monkeypatch.setattr(tables, "BLOCKS", {"phone64": runs})
    work = tmp_path / "work"
    for k, run in enumerate(runs[:-1]):
        rows: dict[str, Any] = {"train_seconds": np.array(60.0)}
        for part in ("validation", "test"):
            labels = lfw.read_faces(data, work, part, size=64).images.labels
            g = torch.Generator().manual_seed(k)
            who = torch.randn(int(labels.max()) + 1, 16, generator=torch.Generator().manual_seed(9))
            noise = torch.randn(len(labels), 16, generator=g)
            rows[part] = (who[labels] + (1 + 0.2 * k) * noise).half().numpy()
        (work / run.name).mkdir(parents=True)
        np.savez(work / run.name / "rows.npz", **rows)
    return tables.Nets(data, work)


def line_of(lines, **wanted):
    """The one line that has these cells."""
    (found,) = [r for r in lines if all(r.get(k) == v for k, v in wanted.items())]
    return found


def test_each_run_and_the_mean_of_its_row(nets):
    lines = list(tables.phone_runs(nets))
    assert len(lines) == (1 + 6) * 2 * 2  # nets, parts, ways to count
    means = list(tables.phone_means(nets))
    assert len(means) == (1 + 4) * 2  # a row at a size, ways to count
    mine = {"row": "alone", "size": "64"}
    for by in ("pair", "person"):
        each, draws = [], []
        for seed in (0, 1):
            run = next(r for r in nets.runs if (r.row, r.seed) == ("alone", seed))
            rows, labels = nets.rows(run), nets.test.images.labels
            each.append(100 * all_pairs_tpr_at_fpr(rows, labels, [0.5], by=by).item())
            draws.append(100 * nets.result(run, by).samples[:, 0].numpy())
            line = line_of(lines, **mine, seed=str(seed), on="test", by=by)
            assert float(line["tpr@1e-2"]) == pytest.approx(each[-1], abs=0.006)
        mean = line_of(means, **mine, by=by)
        assert (mean["seeds"], mean["backbone"]) == ("2", plan.PHONE)
        assert float(mean["tpr@1e-2"]) == pytest.approx(np.mean(each), abs=0.006)
        ends = np.percentile(draws_over_seeds(each, draws), [2.5, 97.5])
        found = [float(mean[f"tpr@1e-2_{end}"]) for end in ("low", "high")]
        assert found == pytest.approx(ends.tolist(), abs=0.011)
    single = line_of(means, row="fitnet", size="64", by="pair")
    result = nets.result(next(r for r in nets.runs if r.row == "fitnet"), "pair")
    assert single["seeds"] == "1"
    assert float(single["tpr@1e-3_low"]) == pytest.approx(100 * result.low[1].item(), abs=0.006)


def test_gains_are_over_the_seeds_that_both_rows_have(nets):
    lines = list(tables.phone_gains(nets))
    assert {r["size"] for r in lines} == {"64"}  # at 112 there is one row
    seeds = {(r["row"], r["minus"]): r["seeds"] for r in lines}
    assert seeds == {
        **{(plan.BARE, "alone"): "2", ("alone", plan.BARE): "2"},
        **{("fitnet", other): "1" for other in ("alone", plan.BARE)},
        **{(row, "fitnet"): "1" for row in ("alone", plan.BARE)},
    }
    runs = {(r.row, r.seed): r for r in nets.runs if r.size == 64}
    fitnet, alone = (nets.result(runs[row, 1], "person") for row in ("fitnet", "alone"))
    line = line_of(lines, row="fitnet", minus="alone", by="person")
    want = [100 * float(x[0]) for x in paired_difference(fitnet, alone)]  # both of seed 1
    got = [float(line[f"tpr@1e-2{end}"]) for end in ("", "_low", "_high")]
    assert got == pytest.approx(want, abs=0.006)
    both = [
        [phone.pairs_result(nets, runs[row, s]) for s in (0, 1)] for row in (plan.BARE, "alone")
    ]
    first, second = (over_runs(side) for side in both)
    line = line_of(lines, row=plan.BARE, minus="alone", by="pair")
    want = 100 * float(first.estimate - second.estimate)
    assert float(line["pairs_accuracy"]) == pytest.approx(want, abs=0.006)


def test_accuracy_of_a_draw_is_that_of_the_pairs_as_often_as_drawn():
    g = np.random.default_rng(0)
    left, right = (torch.from_numpy(g.standard_normal((80, 3))) for _ in range(2))
    is_genuine = torch.arange(80) % 2
    left[is_genuine == 1] += 1
    right[is_genuine == 1] += 1
    folds = torch.from_numpy(g.permutation(80) % 4)
    times = g.integers(1, 4, 80)
    scores = verification_accuracy(left, right, is_genuine, folds=folds, fprs=[0.5]).scores.numpy()
    weights = np.stack([np.ones(80), times]).astype(float)
    found = phone.accuracies(2 - 2 * scores, is_genuine.bool().numpy(), folds.numpy(), weights)
    for often, share in zip((np.ones(80, int), times), found, strict=True):
        again = torch.from_numpy(np.repeat(np.arange(80), often))
        want = verification_accuracy(
            left[again], right[again], is_genuine[again], folds=folds[again], fprs=[0.5]
        )
        assert share == pytest.approx(want.accuracy)


def test_pairs_of_the_list_count_as_often_as_their_people(nets):
    run = nets.runs[0]
    result = phone.pairs_result(nets, run)
    assert result.estimate.item() == pytest.approx(nets.pairs_accuracy(run))
    assert result.low < result.estimate < result.high
    assert len(result.samples) == 200
    again = phone.pairs_result(nets, run)
    assert again is result


@pytest.mark.parametrize("by", ["detector", "light"])
def test_groups_against_the_library_and_a_loop_over_people(nets, by):
    lines = list(grouped.groups(nets))
    run = next(r for r in nets.runs if (r.row, r.seed) == ("fitnet", 1))
    rows, labels = nets.rows(run), nets.test.images.labels
    index = {row["file"]: row for row in lfw.read_index(nets.data)}
    value = [float(index[file]["detector_score"]) for file in nets.test.files]
    if by == "light":
        value = [float(image.mean()) for image in nets.test.images.batch(range(len(labels)))]
    cuts = np.quantile(value, [1 / 3, 2 / 3])
    third = [int(v > cuts[0]) + int(v > cuts[1]) for v in value]
    rates = group_rates(rows, labels, third, [0.3])
    cell_of = (lambda g, h: min(g, h)) if by == "detector" else (lambda g, h: abs(g - h))
    names = ("low", "middle", "high") if by == "detector" else ("alike", "between", "unlike")
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    scores = unit @ unit.T
    strangers = sorted(scores[labels[:, None] < labels].tolist(), reverse=True)
    threshold = strangers[int(0.3 * len(strangers))]
    for k, name in enumerate(names):
        own = [(g, h) for g in range(3) for h in range(g, 3) if cell_of(g, h) == k]
        number = sum(int(rates.num_impostor[g, h]) for g, h in own)
        passed = sum(
            float(rates.fpr[0, g, h]) * int(rates.num_impostor[g, h])
            for g, h in own
            if rates.num_impostor[g, h]
        )
        wanted = {"row": "fitnet", "size": "64", "by": by, "group": name}
        line = line_of(lines, **wanted, pairs="impostor")
        assert int(line["count"]) == number > 0
        assert float(line["rate"]) == pytest.approx(100 * passed / number, abs=0.006)
        shares = []
        for person in range(int(labels.max()) + 1):
            images = (labels == person).nonzero().flatten().tolist()
            asked = [
                bool(scores[i, j] > threshold)
                for i in images
                for j in images
                if i < j and cell_of(third[i], third[j]) == k
            ]
            shares += [np.mean(asked)] if asked else []
        line = line_of(lines, **wanted, pairs="genuine")
        assert line["people"] == str(len(shares))
        assert float(line["rate"]) == pytest.approx(100 * np.mean(shares), abs=0.006)


def test_groups_have_intervals_and_are_compared_with_the_same_seeds(nets):
    lines = list(grouped.groups(nets))
    for line in lines:
        if line["group"] != "gap" and int(line.get("people", 99)) > 8:
            low, rate, high = (float(line[f"rate{end}"]) for end in ("_low", "", "_high"))
            assert low <= rate <= high
    mine = {"size": "64", "by": "detector", "pairs": "genuine"}
    gap = line_of(lines, row=plan.BARE, group="gap", **mine)
    low, high, alone = (
        line_of(lines, row=row, group=group, **mine)
        for row, group in ((plan.BARE, "low"), (plan.BARE, "high"), ("alone", "gap"))
    )
    assert (gap["seeds"], "minus_alone" in alone) == ("2", False)
    assert float(gap["rate"]) == pytest.approx(float(high["rate"]) - float(low["rate"]), abs=0.011)
    assert float(gap["minus_alone"]) == pytest.approx(
        float(gap["rate"]) - float(alone["rate"]), abs=0.011
    )
    decided = {"row": "SFace", "by": "teacher's decision", "pairs": "impostor"}
    assert line_of(lines, **decided, group="accepts")["rate"] == "100.00"
    assert line_of(lines, **decided, group="refuses")["rate"] == "0.00"


def test_multiply_adds_of_a_file_are_those_of_the_net(tmp_path):
    net = build_backbone("mobilefacenet", embedding_dim=128, image_size=64)
    export_onnx(net, tmp_path / "net.onnx", info={"image_size": 64, "embedding_dim": 128})
    macs = profile_backbone(net, image_size=64, repeats=1).macs
    assert cost.onnx_macs(tmp_path / "net.onnx") == macs


def test_lines_of_nets_that_are_gone_stay(tmp_path, monkeypatch):
    table = tmp_path / "real_faces_cost.csv"
    table.write_text("net,size,ms\nSFace,112,40\ntiny_teacher,64,0.7\nmobilefacenet,64,4\n")
    monkeypatch.setattr(cost, "TABLE", table)
    kept = list(cost.as_before({("mobilefacenet", 64)}))
    assert kept == [{"net": "tiny_teacher", "size": "64", "ms": "0.7"}]


def test_a_table_without_runs_of_its_net_is_left_alone(nets, tmp_path, monkeypatch, capsys):
    options = ["--data", str(nets.data), "--work", str(nets.work), "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["", *options, "--only", "real_faces", "lfw_people"])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    tables.main()
    assert "real_faces.csv stays as it is" in capsys.readouterr().out
    assert (tmp_path / "lfw_people.csv").exists() and not (tmp_path / "real_faces.csv").exists()


def test_recipes_are_measured_on_validation_people_and_long_runs_on_all(nets, monkeypatch):
    tried, last = (
        plan.Run(plan.BARE, 0, plan.PHONE, size, steps=30, recipe=plan.BEST_RECIPE)
        for size in (64, 112)
    )
    for run, like in ((tried, nets.runs[2]), (last, nets.runs[3])):
        assert like.row == plan.BARE
        shutil.copytree(nets.work / like.name, nets.work / run.name)
    blocks = {"phone64": nets.runs, "recipe": [tried], "long": [last]}
    monkeypatch.setattr(tables, "BLOCKS", blocks)
    more = tables.Nets(nets.data, nets.work)
    lines = list(long.long_runs(more))
    assert [(r["block"], r["on"], r["by"]) for r in lines] == [
        (block, part, by)
        for block, part in (("recipe", "validation"), ("long", "validation"), ("long", "test"))
        for by in ("pair", "person")
    ]
    assert (lines[0]["batch"], lines[0]["images"], lines[0]["precision"]) == ("32", "960", "bf16")
    for line, seed in ((lines[-1], "1"), (lines[0], "0")):
        same = {name: line[name] for name in ("row", "on", "by")} | {"size": "64", "seed": seed}
        like = line_of(tables.phone_runs(nets), **same)
        assert all(line[name] == like[name] for name in phone.TPR)
    assert lines[-1]["pairs_accuracy"] and not lines[0].get("pairs_accuracy")
    # No other table of MobileFaceNet takes them for the seeds of its comparison.
    assert phone.phones(more) == phone.phones(nets)
    assert list(tables.every_net(more)) == list(tables.every_net(nets))
    # What a net costs is measured on the one that saw the most, and not on a recipe that was tried.
    assert cost.longest(more) == {
        (plan.PHONE, 64): plan.Run(plan.BARE, 0, plan.PHONE, steps=3),
        (plan.PHONE, 112): last,
    }
    # Where it fails stands under its own name, with the rates of the net whose rows these are.
    wanted = {"by": "light", "pairs": "genuine", "group": "gap"}
    found = line_of(grouped.groups(more), row=f"{plan.BARE}, 960 images", size="112", **wanted)
    monkeypatch.setattr(nets, "runs", [nets.runs[3]])
    same = line_of(grouped.groups(nets), row=plan.BARE, **wanted)
    assert found["seeds"] == "1"
    assert all(found[name] == same[name] for name in ("rate", "rate_low", "rate_high"))


def test_long_runs_of_two_rows_and_their_difference(nets, monkeypatch):
    kept = {(run.row, run.seed): run for run in nets.runs if run.size == 64}
    later = [dataclasses.replace(kept[plan.BARE, s], row=row) for s in (0, 1) for row in plan.LATER]
    for run in later[1::2]:  # the other row has the students alone
        shutil.copytree(nets.work / kept["alone", run.seed].name, nets.work / run.name)
    monkeypatch.setattr(tables, "BLOCKS", {"phone64": nets.runs, "later": later})
    more = tables.Nets(nets.data, nets.work)
    for by in ("pair", "person"):
        first, second, minus = (line for line in long.later_runs(more) if line["by"] == by)
        assert (first["row"], second["row"], first["seeds"]) == (*plan.LATER, "2")
        like = line_of(phone.phone_gains(nets), row="alone", minus=plan.BARE, by=by)
        names = [f"{n}{end}" for n in (*phone.TPR, *phone.PAIRS) for end in ("", "_low", "_high")]
        assert all(minus[name] == like[name] for name in names)
        mean = line_of(phone.phone_means(nets), row=plan.BARE, by=by, size="64")
        assert all(first[name] == mean[name] for name in names)
