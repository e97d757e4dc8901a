"""The LFW protocol against a loop over pairs and thresholds, written straight from its text."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold
from sklearn.preprocessing import normalize

from ekd_lite.evaluate import VERIFICATION_SETS, tpr_at_fpr, verification_accuracy


def draw_pairs(num, dim, seed, *, noise=1.0, on_grid=False, folds=10):
    rng = np.random.default_rng(seed)
    block = np.repeat([True, False], num // (2 * folds))  # as in LFW: each fold half and half
    is_genuine = np.tile(block, folds)
    base = rng.normal(size=(len(is_genuine), dim))
    other = np.where(is_genuine[:, None], base, rng.normal(size=base.shape))
    sides = [x + noise * rng.normal(size=x.shape) for x in (base, other, base, other)]
    if on_grid:  # many equal distances
        sides = [x.round() for x in sides]
    left, right, *mirrored = (torch.from_numpy(x.astype(np.float32)) for x in sides)
    return left, right, torch.from_numpy(is_genuine), tuple(mirrored)


def slow_protocol(left, right, is_genuine, splits, far_target=1e-3):
    """Every pair asked about every threshold; also for the cross-validated TAR."""
    distance = np.sum(np.square(left - right), 1)
    accuracies, thresholds, tars, fars = [], [], [], []
    for train, test in splits:
        grid = np.arange(0, 4, 0.01)
        right_answers = [((distance[train] < t) == is_genuine[train]).sum() for t in grid]
        best = grid[int(np.argmax(right_answers))]
        accuracies.append(((distance[test] < best) == is_genuine[test]).sum() / len(test))
        thresholds.append(best)
        grid = np.arange(0, 4, 0.001)
        impostor = distance[train][~is_genuine[train]]
        far = np.array([(impostor < t).sum() / len(impostor) for t in grid])
        threshold = np.interp(far_target, far, grid) if far.max() >= far_target else 0.0
        accepted = distance[test] < threshold
        tars.append(accepted[is_genuine[test]].mean())
        fars.append(accepted[~is_genuine[test]].mean())
    return accuracies, thresholds, tars, fars


@pytest.mark.parametrize("seed", range(6))
def test_every_bit_equals_the_slow_protocol(seed):
    left, right, is_genuine, (left_m, right_m) = draw_pairs(
        400, 12, seed, noise=[0.5, 1.0, 2.0][seed % 3], on_grid=seed >= 3
    )
    use_mirrored = seed % 2 == 0
    sides = [
        normalize(x.numpy().astype(np.float64) + (m.numpy() if use_mirrored else 0))
        for x, m in ((left, left_m), (right, right_m))
    ]
    splits = KFold(10, shuffle=False).split(np.arange(400))
    expected = slow_protocol(*(*sides, is_genuine.numpy(), splits), far_target=1e-2)
    got = verification_accuracy(
        *(left, right, is_genuine),
        mirrored=(left_m, right_m) if use_mirrored else None,
        far_target=1e-2,
        fprs=[0.1, 0.01],
    )
    accuracies, thresholds, tars, fars = (np.array(x) for x in expected)
    assert got.fold_accuracies.tolist() == accuracies.tolist()
    assert (got.accuracy, got.accuracy_std) == (accuracies.mean(), accuracies.std())
    assert got.fold_thresholds.tolist() == (1 - thresholds / 2).tolist()
    assert (got.tar, got.tar_std, got.far) == (tars.mean(), tars.std(), fars.mean())
    cosine = torch.from_numpy((sides[0] * sides[1]).sum(1))
    if seed < 3:  # on a grid, rounding splits equal cosines
        assert got.tpr.tolist() == tpr_at_fpr(cosine, is_genuine, [0.1, 0.01]).tolist()


def test_folds_of_unequal_size_are_those_of_kfold():
    left, right, is_genuine, _ = draw_pairs(120, 8, 0, noise=1.5)
    left, right, is_genuine = left[:113], right[:113], is_genuine[:113]
    fold = torch.empty(113, dtype=torch.long)
    for k, (_, test) in enumerate(KFold(4).split(np.arange(113))):
        fold[test] = k
    in_order = verification_accuracy(left, right, is_genuine, folds=4, fprs=[0.1])
    given = verification_accuracy(left, right, is_genuine, folds=3 * fold + 7, fprs=[0.1])
    assert in_order.fold_accuracies.tolist() == given.fold_accuracies.tolist()
    shuffle = torch.randperm(113, generator=torch.Generator().manual_seed(0))
    moved = verification_accuracy(
        left[shuffle], right[shuffle], is_genuine[shuffle], folds=fold[shuffle], fprs=[0.1]
    )
    assert in_order.fold_accuracies.tolist() == moved.fold_accuracies.tolist()
    assert in_order.tar == moved.tar


def test_perfect_and_unreachable():
    """Separable pairs: accuracy 1. Impostors that never pass on the grid: threshold zero, TAR 0."""
    left = torch.eye(2).repeat(20, 1)
    right = torch.where(torch.arange(40)[:, None] % 2 == 0, left, -left)
    result = verification_accuracy(left, right, torch.arange(40) % 2 == 0, fprs=[0.1])
    assert (result.accuracy, result.accuracy_std, result.tar, result.far) == (1.0, 0.0, 0.0, 0.0)


def test_a_pair_on_the_threshold_is_refused():
    """Genuine pairs at a squared distance of exactly 2: the first threshold that takes them."""
    left = torch.eye(2).repeat(20, 1)
    is_genuine = torch.arange(40) % 4 < 2
    right = torch.where(is_genuine[:, None], left.flip(1), -left)
    result = verification_accuracy(left, right, is_genuine, fprs=[0.1])
    assert result.accuracy == 1.0
    assert result.fold_thresholds.tolist() == [1 - np.arange(0, 4, 0.01)[201] / 2] * 10


def test_a_set_given_by_name_is_checked():
    left, right, is_genuine, _ = draw_pairs(6000, 2, 0)
    for name, known in VERIFICATION_SETS.items():
        assert known.num_images == 2 * known.num_pairs
        if known.num_pairs == 6000:
            assert verification_accuracy(left, right, is_genuine, name=name).accuracy > 0.5
    with pytest.raises(ValueError, match="cfp_fp has 7000 pairs"):
        verification_accuracy(left, right, is_genuine, name="cfp_fp")
    with pytest.raises(ValueError, match="did you mean 'agedb_30'"):
        verification_accuracy(left, right, is_genuine, name="agedb")


def test_bad_input_is_named():
    left, right, is_genuine, _ = draw_pairs(200, 4, 0)
    with pytest.raises(ValueError, match="fold 0 has no impostor pair"):
        verification_accuracy(left, right, is_genuine.sort(descending=True).values)
    with pytest.raises(ValueError, match=r"embeddings \(200, D\)"):
        verification_accuracy(left[:-1], right, is_genuine)
    with pytest.raises(ValueError, match="sides differ"):
        verification_accuracy(left[:, :3], right, is_genuine)
    with pytest.raises(ValueError, match="2 to 200 folds"):
        verification_accuracy(left, right, is_genuine, folds=1)
    with pytest.raises(ValueError, match="two folds or more"):
        verification_accuracy(left, right, is_genuine, folds=torch.zeros(200, dtype=torch.long))
    with pytest.raises(ValueError, match="boolean"):
        verification_accuracy(left, right, is_genuine.long() * 2)
    left[7, 1] = float("nan")
    with pytest.raises(ValueError, match="pair 7 "):
        verification_accuracy(left, right, is_genuine)
