"""The identity bootstrap against a resample written out, and its coverage."""

import numpy as np
import pytest
import torch

from ekd_lite.evaluate import (
    UndefinedMetricWarning,
    all_pairs_tpr_at_fpr,
    bootstrap_tpr_at_fpr,
    paired_difference,
    resample,
    tpr_at_fpr,
)
from ekd_lite.ops import unit_rows


def draw_identities(num, per, dim, seed, noise=1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num, dim, generator=generator).repeat_interleave(per, 0)
    embeddings = centres + noise * torch.randn(num * per, dim, generator=generator)
    return embeddings, torch.arange(num).repeat_interleave(per)


@pytest.mark.parametrize("chunk", [1 << 22, 100, 7])
@pytest.mark.filterwarnings("ignore:an interval needs")
def test_every_resample_equals_one_written_out(monkeypatch, chunk):
    """Copy the images of every drawn identity, and drop pairs between copies of one person."""
    monkeypatch.setattr(resample, "CHUNK", chunk)
    embeddings, labels = draw_identities(12, 4, 6, seed=0)
    embeddings, labels = embeddings[:-2], labels[:-2]  # identities of unequal size
    levels = [1.0, 0.9, 0.3, 0.05]
    result = bootstrap_tpr_at_fpr(embeddings.double(), labels, levels, num_resamples=30, seed=5)
    unit = unit_rows(embeddings.double())
    rng = np.random.default_rng(5)
    for row in result.samples:
        drawn = rng.integers(0, 12, 12)
        copies = [(torch.nonzero(labels == d).flatten(), d, c) for c, d in enumerate(drawn)]
        index = torch.cat([rows for rows, _, _ in copies])
        person = torch.cat([torch.full((len(rows),), d) for rows, d, _ in copies])
        copy = torch.cat([torch.full((len(rows),), c) for rows, _, c in copies])
        i, j = torch.triu_indices(len(index), len(index), 1)
        keep = (person[i] != person[j]) | (copy[i] == copy[j])
        scores = (unit @ unit.T)[index[i], index[j]][keep]
        expected = tpr_at_fpr(scores, (copy[i] == copy[j])[keep], levels)
        np.testing.assert_allclose(row.numpy(), expected.numpy(), atol=1e-12)


def test_estimate_is_the_plain_number_and_lies_in_the_interval():
    embeddings, labels = draw_identities(100, 5, 16, seed=1)
    result = bootstrap_tpr_at_fpr(embeddings, labels, [1e-1, 1e-2, 1e-3], num_resamples=200)
    expected = all_pairs_tpr_at_fpr(embeddings, labels, [1e-1, 1e-2, 1e-3])
    assert result.estimate.tolist() == expected.tolist()
    assert (result.low < result.estimate).all()
    assert (result.estimate < result.high).all()


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """90 % intervals from 60 people, against the value of 2,000 people of the same kind."""
    truth = all_pairs_tpr_at_fpr(*draw_identities(2000, 4, 8, seed=99), [1e-2])
    hits = 0
    for seed in range(60):
        result = bootstrap_tpr_at_fpr(
            *draw_identities(60, 4, 8, seed), [1e-2], num_resamples=150, confidence=0.9
        )
        hits += bool(result.low <= truth <= result.high)
    assert 45 <= hits <= 60  # binomial(60, 0.9) is below 45 once in 1e4


def test_same_seed_same_draws_and_pairing():
    embeddings, labels = draw_identities(50, 4, 8, seed=2)
    better = embeddings + 0.5 * draw_identities(50, 4, 8, seed=2, noise=0.0)[0]
    first, second, again = (
        bootstrap_tpr_at_fpr(e, labels, [1e-2], num_resamples=100, seed=3)
        for e in (better, embeddings, embeddings)
    )
    assert torch.equal(second.samples, again.samples)
    difference, low, high = paired_difference(first, second)
    assert difference == first.estimate - second.estimate
    assert 0 < low < difference < high
    # Pairing removes what both models share: the interval is narrower than the two side by side.
    assert high - low < (first.high - first.low) + (second.high - second.low)
    with pytest.raises(ValueError, match="not paired"):
        paired_difference(first, bootstrap_tpr_at_fpr(embeddings, labels, [1e-1], num_resamples=9))


def test_bad_options_are_named():
    embeddings, labels = draw_identities(4, 4, 8, seed=2)
    with pytest.raises(ValueError, match="num_resamples"):
        bootstrap_tpr_at_fpr(embeddings, labels, [0.1], num_resamples=0)
    with pytest.raises(ValueError, match="at least two"):
        bootstrap_tpr_at_fpr(embeddings, torch.zeros(16), [0.1])


def test_too_few_false_accepts_leave_the_estimate_and_no_interval():
    embeddings, labels = draw_identities(40, 3, 8, seed=4)  # 7,020 impostor pairs
    with pytest.warns(UndefinedMetricWarning, match=r"needs 10 .* \[0.001\] allow \[7\]"):
        result = bootstrap_tpr_at_fpr(embeddings, labels, [1e-2, 1e-3], num_resamples=50)
    plain = all_pairs_tpr_at_fpr(embeddings, labels, [1e-2, 1e-3])
    assert result.estimate.tolist() == plain.tolist()
    for part in (result.low, result.high, result.samples[0]):
        assert part.isnan().tolist() == [False, True]
    full = bootstrap_tpr_at_fpr(
        embeddings, labels, [1e-2, 1e-3], num_resamples=50, min_false_accepts=7
    )
    assert not full.low.isnan().any()
    assert full.samples[:, 0].tolist() == result.samples[:, 0].tolist()


def test_equal_scores_do_not_upset_the_chunks(monkeypatch):
    """Cosines -1, -1/2, 0, 1/2, 1 only: a chunk boundary falls into thousands of equal scores."""
    embeddings, labels = draw_identities(40, 4, 4, seed=6)
    embeddings = torch.where(embeddings > 0, 1.0, -1.0)
    whole = bootstrap_tpr_at_fpr(embeddings, labels, [0.5, 0.1], num_resamples=20)
    monkeypatch.setattr(resample, "CHUNK", 300)
    parts = bootstrap_tpr_at_fpr(embeddings, labels, [0.5, 0.1], num_resamples=20)
    assert whole.samples.tolist() == parts.samples.tolist()
    assert whole.estimate.tolist() == all_pairs_tpr_at_fpr(embeddings, labels, [0.5, 0.1]).tolist()
