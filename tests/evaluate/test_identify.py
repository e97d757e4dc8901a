"""Identification and MegaFace against loops over probes."""

import math

import pytest
import torch

from ekd_lite.evaluate import (
    UndefinedMetricWarning,
    identification_rate,
    identify,
    megaface,
    megaface_rates,
)
from ekd_lite.evaluate.megaface import read_noise_list, refine
from ekd_lite.ops import unit_rows


def draw(num, per, dim, seed, noise=1.0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num, dim, generator=generator).repeat_interleave(per, 0)
    return (
        centres + noise * torch.randn(num * per, dim, generator=generator),
        torch.arange(num).repeat_interleave(per),
    )


def slow_search(probes, probe_labels, gallery, gallery_labels):
    """One probe at a time: (own score or None, best score, rank with ties against us)."""
    for p, label in zip(unit_rows(probes), probe_labels.tolist(), strict=True):
        scores = [float(p @ g) for g in unit_rows(gallery)]
        own = [s for s, x in zip(scores, gallery_labels.tolist(), strict=True) if x == label]
        rank = sum(s >= own[0] for s in scores) if own else None
        yield (own[0] if own else None), max(scores), rank


@pytest.mark.parametrize("on_grid", [False, True])
def test_identification_equals_a_loop_over_probes(monkeypatch, on_grid):
    monkeypatch.setattr(identify, "BLOCK", 17)
    rows, labels = draw(60, 5, 6, seed=0)
    if on_grid:  # equal scores
        rows = torch.where(rows > 0, 1.0, -1.0).double()[:, :4]
    gallery, gallery_labels = rows[::5][:40].flip(0), labels[::5][:40].flip(0)  # 20 strangers
    probes, probe_labels = rows[torch.arange(300) % 5 > 0], labels[torch.arange(300) % 5 > 0]
    found = list(slow_search(probes, probe_labels, gallery, gallery_labels))
    enrolled = [f for f in found if f[0] is not None]
    strangers = [f[1] for f in found if f[0] is None]
    result = identification_rate(
        *(probes, probe_labels, gallery, gallery_labels), ranks=(1, 5, 10, 40), fpirs=[0.3, 0.1]
    )
    assert (result.num_enrolled, result.num_strangers) == (160, 80)
    expected = [sum(f[2] <= r for f in enrolled) / 160 for r in (1, 5, 10, 40)]
    assert result.rank_rates.tolist() == expected
    assert expected[-1] == 1.0
    for level, got in zip((0.3, 0.1), result.tpir.tolist(), strict=True):
        thresholds = [*strangers, *(f[0] for f in enrolled), math.inf]
        allowed = [t for t in thresholds if sum(s >= t for s in strangers) <= level * 80 + 1e-9]
        best = max(sum(f[0] >= t for f in enrolled) for t in allowed)
        assert got == best / 160


def test_one_embedding_for_all_faces_finds_nobody():
    result = identification_rate(
        torch.ones(6, 4), torch.arange(6), torch.ones(6, 4), torch.arange(6)
    )
    assert result.rank_rates.tolist() == [0.0, 0.0, 1.0]  # ranks 1, 5, and 10 of 6


def test_bad_galleries_are_named():
    rows, labels = torch.randn(6, 4), torch.arange(6)
    with pytest.raises(ValueError, match="identity 2 is enrolled more than once"):
        identification_rate(rows, labels, rows, labels.clamp(min=2))
    with pytest.raises(ValueError, match="nothing to rank"):
        identification_rate(rows, labels + 9, rows, labels)
    with pytest.raises(ValueError, match="count from 1"):
        identification_rate(rows, labels, rows, labels, ranks=(0,))
    with pytest.raises(ValueError, match=r"gallery \(N, D\)"):
        identification_rate(rows, labels, rows, labels[:3])
    with pytest.warns(UndefinedMetricWarning, match="no impostor"):
        result = identification_rate(rows, labels, rows, labels, fpirs=[0.1])
    assert result.tpir.isnan().all()


@pytest.mark.parametrize("fpr", [0.5, 1e-2, 1e-3])
def test_megaface_equals_a_loop_over_searches(monkeypatch, fpr):
    monkeypatch.setattr(megaface, "BLOCK", 50)
    probes, labels = draw(8, 4, 6, seed=1)
    distractors = draw(400, 1, 6, seed=2)[0]
    a, d = unit_rows(probes), unit_rows(distractors)
    impostor = sorted((float(x) for row in a @ d.T for x in row), reverse=True)
    hits, genuine = [], []
    for i in range(32):
        for j in range(32):
            if i != j and labels[i] == labels[j]:
                genuine.append(float(a[i] @ a[j]))
                hits.append(all(genuine[-1] > float(s) for s in a[i] @ d.T))
    result = megaface_rates(probes, labels, distractors, fpr=fpr)
    assert (result.num_genuine, result.num_impostor) == (8 * 12, 32 * 400)
    assert result.rank1 == sum(hits) / len(hits)
    assert 0 < result.rank1 < 1
    k = round(fpr * len(impostor))
    assert result.tpr == pytest.approx(
        sum(g > impostor[k - (k * 1.0 > fpr * 12800)] for g in genuine) / 96
    )


def test_megaface_threshold_by_hand():
    """Faces on a circle: impostor cosines of 10, 30, 70, 90 degrees, genuine of 20 degrees."""
    angles = torch.deg2rad(torch.tensor([0.0, 20.0, -10.0, 90.0]))
    rows = torch.stack([angles.cos(), angles.sin()], 1)
    got = megaface_rates(rows[:2], torch.zeros(2), rows[2:], fpr=0.25)  # one false accept
    assert (got.tpr, got.rank1) == (1.0, 0.5)  # probe 0 finds the distractor at 10 degrees


def test_refined_noise_never_matches_and_probes_move_to_their_centre():
    probes, labels = draw(5, 6, 16, seed=3)
    distractors = torch.cat([probes[:3], draw(50, 1, 16, seed=4)[0]])  # three are probes: noise
    noisy_probe = torch.arange(30) % 6 == 0
    noisy_distractor = torch.arange(53) < 3
    dirty = megaface_rates(probes, labels, distractors, fpr=1e-2)
    new_probes, new_distractors = refine(
        probes, labels, noisy_probe, distractors, noisy_distractor, seed=1
    )
    assert new_probes.shape == (30, 17) and new_distractors.shape == (53, 17)
    for row in range(30):
        expected = unit_rows(probes)[row]
        if noisy_probe[row]:
            mates = (labels == labels[row]) & ~noisy_probe
            expected = unit_rows(unit_rows(probes)[mates].sum(0, keepdim=True))[0]
        assert (new_probes[row, :16] - expected).abs().max() < 1.1e-3
    # A noisy distractor is 100 away from everybody: its cosines are below 0.011.
    assert (unit_rows(new_probes) @ unit_rows(new_distractors)[:3].T).abs().max() < 0.011
    assert megaface_rates(new_probes, labels, new_distractors, fpr=1e-2).rank1 > dirty.rank1
    with pytest.raises(ValueError, match="identity 0 has none clean"):
        refine(probes, labels, labels == 0, distractors, noisy_distractor)


def test_noise_lists(tmp_path):
    path = tmp_path / "noises.txt"
    path.write_text("# comment\n\n12\ta/b/c.jpg\nPerson_7.jpg\n")
    assert read_noise_list(path) == {"a/b/c.jpg", "Person_7.jpg"}
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="names no image"):
        read_noise_list(path)


def test_megaface_bad_input_is_named():
    rows, labels = torch.randn(6, 4), torch.arange(6)
    with pytest.raises(ValueError, match="nothing to find"):
        megaface_rates(rows, labels, rows)
    with pytest.raises(ValueError, match="width 4, distractors 3"):
        megaface_rates(rows, labels // 2, rows[:, :3])
    with pytest.warns(UndefinedMetricWarning, match="36 impostor pairs cannot show"):
        assert math.isnan(megaface_rates(rows, labels // 2, rows, fpr=1e-6).tpr)
