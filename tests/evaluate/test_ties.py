"""Equal pairs tie in every metric, shape, dtype and order of the images."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ekd_lite.evaluate import (
    all_pairs_tpr_at_fpr,
    bootstrap_tpr_at_fpr,
    group_rates,
    identification_rate,
    ijb_tpr_at_fpr,
    megaface_rates,
    resample,
    thresholds,
    tiles,
    verification_accuracy,
)
from ekd_lite.evaluate.ijb_files import TemplateMedia, TemplatePairs

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
LEVELS = [0.9, 0.5, 0.2, 0.1, 0.03]
quiet = pytest.mark.filterwarnings("ignore::ekd_lite.evaluate.UndefinedMetricWarning")


def every_metric(rows, labels, *, seed=0):
    """Each metric's TPR at the levels, on pairs that all metrics can be made to see."""
    n, people = len(rows), torch.unique(labels)
    i, j = torch.triu_indices(n, n, 1)
    same = labels[i] == labels[j]
    media = TemplateMedia([], torch.arange(n), torch.zeros(n, dtype=torch.int64))
    found = {
        "all pairs": all_pairs_tpr_at_fpr(rows, labels, LEVELS),
        "ijb": ijb_tpr_at_fpr(rows, media, TemplatePairs(i, j, same), LEVELS),
        "bootstrap": bootstrap_tpr_at_fpr(
            rows, labels, LEVELS, num_resamples=3, seed=seed
        ).estimate,
        "lfw": lfw(rows, i, j, same).tpr,
    }
    groups = ["a"] * n
    num_impostor = int((~same).sum())
    shown = [level for level in LEVELS if level * num_impostor >= 1]
    if same.any() and shown:
        found["groups"] = group_rates(rows, labels, groups, shown).tpr[:, 0, 0]
    if same.any() and len(people) > 1:
        first = labels == people[0]
        if first.sum() > 1:
            result = megaface_rates(rows[first], labels[first], rows[~first], fpr=0.5)
            found["megaface"] = torch.tensor([result.tpr, result.rank1], dtype=torch.float64)
    entry = torch.tensor([int((labels == person).nonzero()[0]) for person in people])
    probes = torch.ones(n, dtype=torch.bool)
    probes[entry] = False
    if probes.any():
        found["identification"] = identification_rate(
            rows[probes], labels[probes], rows[entry], labels[entry], ranks=(1,)
        ).rank_rates
    return found


def lfw(rows, i, j, same, **options):
    """The pairs in two folds that hold both kinds, if there are enough of each."""
    fold = torch.zeros(len(i), dtype=torch.int64)
    for flags in (same, ~same):
        where = flags.nonzero().flatten()
        fold[where[len(where) // 2 :]] = 1
    if min(same.sum(), (~same).sum()) < 2:
        i, j, same, fold = torch.tensor([0] * 4), torch.tensor([0] * 4), fold[:0], fold[:0]
        same, fold = torch.tensor([True, False] * 2), torch.tensor([0, 0, 1, 1])
    return verification_accuracy(rows[i], rows[j], same, folds=fold, fprs=LEVELS, **options)


def same_numbers(first, second):
    assert first.keys() == second.keys()
    for name, expected in first.items():
        assert torch.equal(expected.nan_to_num(-1), second[name].nan_to_num(-1)), name


@pytest.fixture(params=["sorted", "one sweep", "counted"])
def way(request, monkeypatch):
    """Small sets the three ways that `impostor_thresholds` has."""
    if request.param != "sorted":
        monkeypatch.setattr(thresholds, "DIRECT", 0)
    if request.param == "one sweep":
        monkeypatch.setattr(thresholds, "WORTH_A_WALK", 2.0)
    if request.param == "counted":
        monkeypatch.setattr(thresholds, "WORTH_A_WALK", 0.0)
    return request.param


shapes = st.tuples(
    st.integers(2, 9), st.integers(2, 4), st.sampled_from([1, 2, 3, 5, 16, 31, 64, 257, 512])
)


@quiet
@settings(max_examples=25, deadline=None)
@given(shapes, st.sampled_from(DTYPES), st.integers(0, 2**31), st.sampled_from([3, 8, 1024]))
def test_a_collapsed_net_scores_zero_everywhere(shape, dtype, seed, tile):
    people, per, width = shape
    row = torch.randn(1, width, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(people).repeat_interleave(per)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", tile)
        patch.setattr(tiles, "WINDOW", tile)
        for one in (row, torch.zeros_like(row), 1e30 * row, 1e-30 * row):
            rows = one.to(dtype).repeat(people * per, 1)
            if not rows.isfinite().all():  # 1e30 in half precision
                continue
            for name, tpr in every_metric(rows, labels).items():
                assert tpr.nan_to_num(0).abs().max() == 0, name


@quiet
def test_a_collapsed_net_scores_zero_where_it_did_not():
    """77 of 200 shapes gave 100 % when genuine scores came from products of their own."""
    for seed in range(8):
        row = torch.randn(1, 512, generator=torch.Generator().manual_seed(seed))
        for people, per in ((100, 4), (700, 3)):  # some 80,000 and 2.2 million impostor pairs
            labels = torch.arange(people).repeat_interleave(per)
            rows = row.repeat(len(labels), 1)
            assert all_pairs_tpr_at_fpr(rows, labels, [0.1, 0.01]).tolist() == [0, 0]
            if seed:
                break
    # One direction in a hundred lengths: rounded to float32 the rows differ, their cosine does not.
    lengths = torch.rand(400, 1, generator=torch.Generator().manual_seed(0)) + 0.1
    tpr = all_pairs_tpr_at_fpr(lengths * row, torch.arange(400) // 4, [0.1, 0.01])
    assert tpr.tolist() == [0, 0]


def exact_tpr(rows, labels, levels):
    """From the definition, cosines compared as fractions: sign(dot) dot^2 / (|x|^2 |y|^2)."""
    whole = [[int(x) for x in row] for row in rows.tolist()]

    def cosine(p, q):
        dot, a, b = (sum(x * y for x, y in zip(u, v, strict=True))
                     for u, v in ((p, q), (p, p), (q, q)))  # fmt: skip
        return Fraction(dot * abs(dot), a * b) if a and b else Fraction(0)

    pairs = [(cosine(whole[i], whole[j]), bool(labels[i] == labels[j]))
             for i in range(len(whole)) for j in range(i)]  # fmt: skip
    impostor = sorted((s for s, genuine in pairs if not genuine), reverse=True)
    genuine = [s for s, genuine in pairs if genuine]
    found = []
    for level in levels:
        allowed = math.floor(Fraction(repr(level)) * len(impostor))
        if not allowed or not genuine:
            found.append(math.nan)
        elif allowed == len(impostor):
            found.append(1.0)
        else:
            found.append(sum(s > impostor[allowed] for s in genuine) / len(genuine))
    return found


few_rows = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(-2, 2), min_size=width, max_size=width)),
        min_size=4,
        max_size=14,
    )
)


@quiet
@settings(max_examples=60, deadline=None)
@given(few_rows, st.sampled_from([*DTYPES, torch.int64]), st.sampled_from(["plain", 0.0, 2.0]))
def test_ties_are_those_of_fractions(drawn, dtype, worth):
    """Whole numbers, zero rows and duplicates among them: 2/sqrt(12) ties with 1/sqrt(3)."""
    labels = torch.tensor([label for label, _ in drawn])
    rows = torch.tensor([row for _, row in drawn]).to(dtype)
    if len(torch.unique(labels)) < 2:
        labels[0] = 5
    expected = np.array(exact_tpr(rows, labels, LEVELS))
    with pytest.MonkeyPatch.context() as patch:
        if worth != "plain":
            patch.setattr(thresholds, "DIRECT", 0)
            patch.setattr(thresholds, "WORTH_A_WALK", worth)
        found = every_metric(rows, labels)
        np.testing.assert_array_equal(found["all pairs"].numpy(), expected)
        np.testing.assert_array_equal(found["bootstrap"].numpy(), expected)
        np.testing.assert_array_equal(found["ijb"].numpy(), expected)
        if "groups" in found:
            shown = ~np.isnan(expected)
            np.testing.assert_array_equal(found["groups"].numpy(), expected[shown])
        i, j = torch.triu_indices(len(rows), len(rows), 1)
        same = labels[i] == labels[j]
        if min(same.sum(), (~same).sum()) > 1:
            np.testing.assert_array_equal(found["lfw"].numpy(), expected)


@quiet
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([3, 16, 512]), st.sampled_from([1, 2]))
def test_two_embeddings_and_duplicates_in_any_order(seed, width, kinds):
    """Rows drawn from a few: the order of images, the tiles and the threads change no bit."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(2 * kinds, width, generator=generator)
    rows = base[torch.randint(2 * kinds, (24,), generator=generator)]
    labels = torch.arange(24) // 3
    shuffle = torch.randperm(24, generator=generator)
    expected = every_metric(rows, labels)
    # Without the metrics that choose their own gallery or probes by the order of images.
    expected = {k: v for k, v in expected.items() if k not in ("identification", "megaface")}
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for tile, count in ((1024, 2), (9, 1), (5, 3)):
            patch.setattr(tiles, "TILE", tile)
            patch.setattr(tiles, "WINDOW", tile)
            torch.set_num_threads(count)
            try:
                found = every_metric(rows[shuffle], labels[shuffle])
            finally:
                torch.set_num_threads(threads)
            same_numbers(expected, {name: found[name] for name in expected})
    if kinds == 1:
        # Two embeddings: cosines 1 and one other. What passes is all of a value or nothing.
        i, j = torch.triu_indices(24, 24, 1)
        alike = (rows[i] == rows[j]).all(dim=1)
        genuine = labels[i] == labels[j]
        share = int((alike & genuine).sum()) / int(genuine.sum())
        assert set(expected["all pairs"].tolist()) <= {0.0, share}
        assert set(expected["ijb"].tolist()) <= {0.0, share}


@quiet
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_permutation_changes_no_bit(way, dtype):
    """Also of resamples and of every group, on rows without duplicates."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(20, 33, generator=generator).repeat_interleave(4, 0)
    rows = (rows + 1.5 * torch.randn(80, 33, generator=generator)).to(dtype)
    labels = torch.arange(20).repeat_interleave(4)
    groups = np.array(["ab"[k % 2] for k in labels.tolist()])
    shuffle = torch.randperm(80, generator=generator)
    for function in (
        lambda e, x, g: [all_pairs_tpr_at_fpr(e, x, LEVELS)],
        lambda e, x, g: vars(bootstrap_tpr_at_fpr(e, x, LEVELS, num_resamples=20)).values(),
        lambda e, x, g: vars(group_rates(e, x, list(g), LEVELS)).values(),
    ):
        first = function(rows, labels, groups)
        second = function(rows[shuffle], labels[shuffle], groups[shuffle.numpy()])
        for one, other in zip(first, second, strict=True):
            if isinstance(one, torch.Tensor):
                assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))


@quiet
@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_embeddings_of_any_size_give_the_same_result(factor):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(12, 9, generator=generator).repeat_interleave(3, 0)
    rows = rows + torch.randn(36, 9, generator=generator)
    labels = torch.arange(12).repeat_interleave(3)
    expected = every_metric(rows, labels)
    assert expected["all pairs"].max() > 0.5
    same_numbers(expected, every_metric(rows * factor, labels))
    same_numbers(expected, every_metric(rows.double() * factor**5, labels))
    i, j = torch.triu_indices(36, 36, 1)
    same = labels[i] == labels[j]
    small, large = (
        lfw(x, i, j, same, mirrored=(x[i].flip(1), x[j].flip(1))) for x in (rows, rows * factor)
    )
    assert small.tpr.tolist() == large.tpr.tolist()
    assert small.fold_accuracies.tolist() == large.fold_accuracies.tolist()


def test_templates_of_one_image_are_equal_whatever_its_copies():
    """Two embeddings in templates of one to seven copies, mixed media: cosines tie by kind."""
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(2, 64, generator=generator)
    copies = torch.arange(40) % 7 + 1
    kind = torch.randint(2, (40,), generator=generator)
    template = torch.arange(40).repeat_interleave(copies)
    media = TemplateMedia([], template, torch.randint(3, (len(template),), generator=generator))
    i, j = torch.triu_indices(40, 40, 1)
    is_genuine = torch.rand(len(i), generator=generator) < 0.3
    tpr = ijb_tpr_at_fpr(base[kind[template]], media, TemplatePairs(i, j, is_genuine), [0.1, 0.9])
    alike = int(((kind[i] == kind[j]) & is_genuine).sum()) / int(is_genuine.sum())
    assert tpr.tolist() == [0.0, alike]


@quiet
def test_millions_of_equal_pairs_do_not_fill_the_memory(monkeypatch):
    """The bootstrap of a collapsed net: more equal scores than a chunk may hold."""
    monkeypatch.setattr(resample, "CHUNK", 50)
    largest = []
    advance = resample.Draw.advance
    monkeypatch.setattr(
        resample.Draw,
        "advance",
        lambda self, chunk: largest.append(len(chunk.scores)) or advance(self, chunk),
    )
    monkeypatch.setattr(tiles, "TILE", 16)
    labels = torch.arange(120) // 3
    rows = torch.ones(120, 4)
    rows[:30] = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    result = bootstrap_tpr_at_fpr(rows, labels, [0.5, 0.9], num_resamples=20)
    assert max(largest) <= 16 * 16
    monkeypatch.undo()
    whole = bootstrap_tpr_at_fpr(rows, labels, [0.5, 0.9], num_resamples=20)
    assert torch.equal(result.samples, whole.samples)
    assert whole.estimate.tolist() == all_pairs_tpr_at_fpr(rows, labels, [0.5, 0.9]).tolist()
