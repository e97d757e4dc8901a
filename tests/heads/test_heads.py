"""Margin heads: their functions of the angle, and gradients that stay finite where arccos does not.

The loop at the top is the oracle: one row at a time, float64, with math.acos.
"""

import math
import statistics
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ekd_lite.heads import (
    HEADS,
    AdaFace,
    ArcFace,
    CosFace,
    CurricularFace,
    NormFace,
    PartialFC,
    SphereFace,
)
from ekd_lite.heads.margin import add_angle

FIXED = {"normface": NormFace, "sphereface": SphereFace, "cosface": CosFace, "arcface": ArcFace}


NEAR_ONE = 1 - 1e-6


def inner(theta):
    """The angle as the heads turn it: its cosine is kept 1e-6 away from +-1."""
    return math.acos(min(max(math.cos(theta), -NEAR_ONE), NEAR_ONE))


def sphereface(theta, m=4.0, blend=5.0):
    k = math.floor(m * inner(theta) / math.pi)
    psi = (-1) ** k * math.cos(m * inner(theta)) - 2 * k
    return (blend * math.cos(theta) + psi) / (1 + blend)


def arcface(theta, m=0.5):
    is_inside = theta < math.pi - m
    return math.cos(inner(theta) + m) if is_inside else math.cos(theta) - m * math.sin(m)


TARGETS = {
    "normface": math.cos,
    "sphereface": sphereface,
    "cosface": lambda theta: math.cos(theta) - 0.35,
    "arcface": arcface,
}


def angles(embeddings, prototypes):
    """theta (N, C), nested lists."""
    rows = []
    for x in embeddings.tolist():
        lengths = [math.hypot(*x) * math.hypot(*w) for w in prototypes.tolist()]
        dots = [sum(a * b for a, b in zip(x, w, strict=True)) for w in prototypes.tolist()]
        rows.append([math.acos(min(max(d / n, -1), 1)) for d, n in zip(dots, lengths, strict=True)])
    return rows


def cifp_rows(cosines, labels, fpr=None):
    """CosFace with the mean square of an image's false accepts taken off."""
    classes, cells = len(cosines[0]), []
    for i, (row, y) in enumerate(zip(cosines, labels, strict=True)):
        cells += [(c, i) for j, c in enumerate(row) if j != y and c <= row[y]]
    k = math.ceil((1 / max(classes - 1, 1) if fpr is None else fpr) * len(cells))
    threshold = sorted(cells, reverse=True)[k - 1][0] if k else math.inf
    rows = []
    for i, (row, y) in enumerate(zip(cosines, labels, strict=True)):
        squares = [c * c for c, owner in cells if owner == i and c > threshold]
        penalty = sum(squares) / max(len(squares), 1)
        own = row[y] - 0.35 - (1 + row[y]) * penalty
        rows.append([64 * (own if j == y else c) for j, c in enumerate(row)])
    return rows


def oracle_logits(name, head, embeddings, labels):
    thetas = angles(embeddings, head.prototypes.detach())
    own = [row[y] for row, y in zip(thetas, labels.tolist(), strict=True)]
    progress = 0.01 * sum(math.cos(v) for v in own) / len(own)  # CurricularFace's t, first batch
    lengths = [min(max(math.hypot(*x), 1e-3), 100) for x in embeddings.tolist()]
    mu = sum(lengths) / len(lengths)
    sigma = math.sqrt(sum((v - mu) ** 2 for v in lengths) / max(len(lengths) - 1, 1))
    rows = []
    for theta, y, length in zip(thetas, labels.tolist(), lengths, strict=True):
        row = [math.cos(v) for v in theta]
        if name == "curricularface":
            edge = math.cos(inner(theta[y]) + 0.5)
            row = [c * (progress + c) if c > edge else c for c in row]
            row[y] = arcface(theta[y])
        elif name == "adaface":
            q = min(max(0.333 * (length - mu) / (sigma + 1e-3), -1), 1)
            row[y] = math.cos(min(max(inner(theta[y]) - 0.4 * q, 0), math.pi)) - 0.4 * (q + 1)
        elif name != "cifp":
            row[y] = TARGETS[name](theta[y])
        rows.append([64 * c for c in row])
    if name == "cifp":
        rows = cifp_rows([[math.cos(v) for v in theta] for theta in thetas], labels.tolist())
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("name", HEADS)
@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 5),
    dim=st.integers(2, 5),
    identities=st.integers(1, 6),
    data=st.data(),
)
def test_logits_equal_a_loop(name, seed, rows, dim, identities, data):
    generator = torch.Generator().manual_seed(seed)
    head = HEADS[name](dim, identities).double()
    head.prototypes.data.normal_(generator=generator)
    x = torch.randn(rows, dim, generator=generator, dtype=torch.float64) * 3
    labels = data.draw(
        st.lists(st.integers(0, identities - 1), min_size=rows, max_size=rows).map(torch.tensor)
    )
    expected = oracle_logits(name, head, x, labels)
    torch.testing.assert_close(head(x, labels).detach(), expected, atol=1e-8, rtol=0)
    cosines = torch.tensor(angles(x, head.prototypes.detach()), dtype=torch.float64).cos()
    torch.testing.assert_close(head.cosine_logits(x).detach(), 64 * cosines, atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", HEADS)
def test_cosines_that_are_known_already_give_the_same_logits(name):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, generator=generator)
    head, labels = HEADS[name](4, 9).eval(), torch.arange(6)
    with torch.no_grad():
        assert torch.equal(head(x, labels, cosines=head.cosines(x)), head(x, labels))
        assert not torch.equal(head(x, labels, cosines=head.cosines(x) / 2), head(x, labels))


@pytest.mark.parametrize("name", FIXED)
def test_target_falls_with_the_angle_and_never_lies_above_the_cosine(name):
    head = FIXED[name](4, 2)
    cosine = torch.cos(torch.linspace(0, math.pi, 2001, dtype=torch.float64))
    target = head.target(cosine)
    steps = target.diff()
    assert (steps <= 1e-12).all()
    assert (steps[5:-5] < 0).all()  # the very ends are clamped
    # The clamp that keeps the slope finite moves theta = 0 by 1.4e-3.
    assert (target <= cosine + 2e-5).all()


@pytest.mark.parametrize("name", ["cosface", "arcface"])
def test_a_larger_margin_lowers_the_true_logit_and_raises_the_loss(name):
    head = HEADS[name](8, 5).double()
    x, labels = torch.randn(6, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0])
    previous = None
    for margin in (0.0, 0.1, 0.3, 0.5):
        head.margin = margin
        logits = head(x, labels).detach()
        own = logits.gather(1, labels[:, None])
        loss = F.cross_entropy(logits, labels)
        if previous is not None:
            assert (own < previous[0]).all()
            assert loss > previous[1]
        previous = own, loss


def test_the_heads_are_one_function_with_different_margins():
    x, labels = torch.randn(7, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    plain = NormFace(6, 4).double()

    def logits(head, **changes):
        head = head.double()
        head.prototypes.data.copy_(plain.prototypes.data)
        for key, value in changes.items():
            setattr(head, key, value)
        return head(x, labels)

    norm = plain(x, labels)
    for same in (
        logits(ArcFace(6, 4, margin=0.0)),
        logits(CosFace(6, 4, margin=0.0)),
        logits(SphereFace(6, 4, margin=1.0)),
        logits(AdaFace(6, 4, margin=0.0)),
    ):
        torch.testing.assert_close(same, norm, atol=1e-9, rtol=0)
    # A margin on its way up from 0 is no margin yet.
    torch.testing.assert_close(logits(SphereFace(6, 4), margin=0.0), norm, atol=1e-9, rtol=0)
    # AdaFace at q = 0 is CosFace.
    ada = logits(AdaFace(6, 4, margin=0.3), concentration=0.0)
    torch.testing.assert_close(ada, logits(CosFace(6, 4, margin=0.3)))
    # CurricularFace is ArcFace as long as no impostor is hard, and not from then on.
    plain.prototypes.data.copy_(torch.eye(4, 6))
    x = plain.prototypes.detach()[labels]
    assert torch.equal(logits(CurricularFace(6, 4)), logits(ArcFace(6, 4)))
    x = x.roll(1, dims=0) + 0.5 * x
    assert not torch.equal(logits(CurricularFace(6, 4)), logits(ArcFace(6, 4)))


# CIFP holds prototypes still on purpose where others move: its gradient is in test_cifp.py.
@pytest.mark.parametrize("name", [name for name in HEADS if name != "cifp"])
def test_gradcheck(name):
    torch.manual_seed(3)
    head = HEADS[name](4, 5).double().eval()
    if name == "adaface":  # lengths that give q in -1..1 and would not if measured wrongly
        head.length_mean += 2
        head.length_std += 1
        head.concentration = 0.0  # q has no gradient by definition, so hold it still
    if name == "curricularface":
        head.progress += 0.3
    labels = torch.tensor([0, 1, 2, 4, 4, 3])
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    w = head.prototypes.detach().clone().requires_grad_()

    def logits(x, w):
        return torch.func.functional_call(head, {"prototypes": w}, (x, labels))

    assert torch.autograd.gradcheck(logits, (x, w))


def adversarial_cases(num, dim, identities, generator):
    """Embeddings parallel, opposite, zero, 1e4 long, duplicated, random; for given prototypes."""
    prototypes = 0.05 * torch.randn(identities, dim, generator=generator)
    labels = torch.randint(identities, (num,), generator=generator)
    x = torch.randn(num, dim, generator=generator)
    kind = torch.arange(num) % 6
    own = prototypes[labels]
    x = torch.where((kind == 0)[:, None], own * 7, x)
    x = torch.where((kind == 1)[:, None], -own * 7, x)
    x = torch.where((kind == 2)[:, None], 0.0, x)
    x = torch.where((kind == 3)[:, None], x * 1e4, x)
    x = torch.where((kind == 4)[:, None], x[:1], x)
    return x, labels, prototypes, kind


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", HEADS)
def test_gradients_stay_finite_and_small_in_ten_thousand_adversarial_cases(name, dtype):
    """Batches of 250, in float32 or under autocast with embeddings of that precision."""
    generator = torch.Generator().manual_seed(0)
    head = HEADS[name](32, 50)
    largest, typical = 0.0, []
    for _ in range(40):
        x, labels, prototypes, kind = adversarial_cases(250, 32, 50, generator)
        head.prototypes.data.copy_(prototypes)
        x = x.to(dtype).requires_grad_()
        head.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(head(x, labels), labels, reduction="sum")
        loss.backward()
        assert loss.isfinite()
        assert x.grad.isfinite().all()
        assert head.prototypes.grad.isfinite().all()
        norms = x.grad.float().norm(dim=1)
        largest = max(largest, float(norms.max()))
        typical.append(norms[kind == 5])
    median = float(torch.cat(typical).median())
    assert 0 < largest <= 100 * median


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", HEADS)
def test_half_precision_embeddings_lose_nothing_in_the_head(name, dtype):
    torch.manual_seed(0)
    x, labels = torch.randn(64, 128).to(dtype), torch.arange(64) % 10
    head = HEADS[name](128, 10).eval()
    with torch.autocast("cpu", dtype):
        logits = head(x, labels)
    assert logits.dtype == torch.float32
    exact = head.double()(x.double(), labels)
    assert (logits - exact).abs().max() < 1e-3 * exact.abs().max()


def test_a_nan_embedding_is_not_taken_for_a_dead_one():
    head = ArcFace(3, 2)
    x = torch.tensor([[float("nan"), 1.0, 1.0], [1.0, 2.0, 3.0]])
    logits = head(x, torch.tensor([0, 1]))
    assert logits[0].isnan().all()
    assert logits[1].isfinite().all()


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("rows", [0, 1])
def test_empty_and_single_batches(name, rows):
    head = HEADS[name](3, 2)
    x = torch.ones(rows, 3, requires_grad=True)
    logits = head(x, torch.zeros(rows, dtype=torch.int64))
    assert logits.shape == (rows, 2)
    logits.sum().backward()
    assert x.grad.isfinite().all()
    assert all(b.isfinite().all() for b in head.buffers())


@pytest.mark.parametrize("label", [-1, -100, 10, 99, 2**24 + 1])
@pytest.mark.parametrize("position", [0, 3])
@pytest.mark.parametrize("name", HEADS)
def test_a_label_out_of_range_is_named_with_its_position(name, label, position):
    head = HEADS[name](4, 10)
    labels = torch.tensor([1, 2, 3, 4])
    labels[position] = label
    with pytest.raises(ValueError, match=rf"label {label} at position {position} .* 0\.\.9"):
        head(torch.randn(4, 4), labels)


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (torch.randn(4, 4), torch.zeros(4), "of int64"),
        (torch.randn(4, 4), torch.zeros(4, dtype=torch.bool), "of int64"),
        (torch.randn(4, 4), torch.zeros(3, dtype=torch.int64), r"expected labels \(4,\)"),
        (torch.randn(4, 5), torch.zeros(4, dtype=torch.int64), r"expected embeddings \(N, 4\)"),
        (torch.randn(4), torch.zeros(4, dtype=torch.int64), r"expected embeddings \(N, 4\)"),
    ],
)
def test_wrong_shapes_are_named(embeddings, labels, message):
    with pytest.raises(ValueError, match=message):
        ArcFace(4, 10)(embeddings, labels)


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0)])
def test_impossible_sizes_are_named(sizes):
    with pytest.raises(ValueError, match="embedding_dim >= 1"):
        NormFace(*sizes)


def test_spherefaces_margin_is_a_factor():
    with pytest.raises(
        ValueError, match=r"SphereFace's margin must lie in 1\.\.20 \(a factor\), got 0\.5"
    ):
        SphereFace(4, 3, margin=0.5)


def test_curricularface_follows_the_training_and_rests_in_evaluation():
    head = CurricularFace(4, 3)
    x, labels = head.prototypes.detach()[[0, 1, 2]] * 5, torch.tensor([0, 1, 2])
    for step in range(1, 4):
        head(x, labels)
        assert float(head.progress) == pytest.approx(1 - 0.99**step, abs=1e-5)
    before = head.progress.clone()
    head.eval()(x, labels)
    assert head.progress == before
    assert "progress" in head.state_dict()


def test_adaface_averages_lengths_evenly_at_first_and_restores_them():
    head = AdaFace(2, 3, momentum=0.25)
    labels = torch.tensor([0, 1])
    means = []
    for length in (2.0, 4.0, 9.0):
        head(torch.tensor([[length, 0.0], [0.0, length]]), labels)
        means.append(float(head.length_mean))
    assert means == pytest.approx([2, 3, 5])
    for _ in range(3):
        head(torch.full((2, 2), 7.0), labels)
    assert float(head.length_mean) == pytest.approx(
        math.sqrt(98) + (5 - math.sqrt(98)) * 0.75**3, rel=1e-5
    )
    copy = AdaFace(2, 3, momentum=0.25)
    copy.load_state_dict(head.state_dict())
    x = torch.randn(2, 2)
    torch.testing.assert_close(copy(x, labels), head(x, labels))


@pytest.mark.parametrize(
    ("length", "counted"), [(0.0, 1e-3), (1e-5, 1e-3), (150.0, 100.0), (1e6, 100.0)]
)
def test_adaface_counts_a_length_as_at_least_a_thousandth_and_at_most_a_hundred(length, counted):
    """One runaway or dead embedding must not move mu and sigma further than that."""
    head = AdaFace(2, 3).double()
    lengths = [3.0, 4.0, 8.0, length]
    x = torch.tensor([[v, 0.0] for v in lengths], dtype=torch.float64)
    quality = head.quality(x)
    lengths[-1] = counted
    mu, sigma = statistics.mean(lengths), statistics.stdev(lengths)
    assert float(head.length_mean) == pytest.approx(mu, rel=1e-12)
    assert float(head.length_std) == pytest.approx(sigma, rel=1e-12)
    expected = [min(max(0.333 * (v - mu) / (sigma + 1e-3), -1), 1) for v in lengths]
    assert quality.flatten().tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("make", [*HEADS.values(), partial(PartialFC, ArcFace)])
def test_prototypes_start_at_a_hundredth(make):
    """The cosine knows no length, but the gradient is 1 / length: the start decides the steps."""
    torch.manual_seed(0)
    prototypes = make(64, 500).prototypes.detach()
    assert prototypes.std().item() == pytest.approx(0.01, rel=0.02)
    assert prototypes.mean().item() == pytest.approx(0, abs=3e-4)
    # Normal, not uniform: three of a thousand lie beyond three standard deviations.
    assert (prototypes.abs() > 0.03).float().mean().item() == pytest.approx(0.0027, abs=0.001)


def test_add_angle_takes_one_margin_a_row():
    cosine = torch.tensor([0.3, -0.95, 0.8], dtype=torch.float64)
    margin = torch.tensor([0.2, 0.5, 0.0], dtype=torch.float64)
    expected = [arcface(math.acos(c), m) for c, m in ((0.3, 0.2), (-0.95, 0.5), (0.8, 0.0))]
    assert add_angle(cosine, margin).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", HEADS)
def test_prototypes_start_small_and_random(name):
    """As in the authors' code, std 0.01: with weight decay and Adam their length matters."""
    torch.manual_seed(0)
    prototypes = HEADS[name](64, 500, margin=1.0).prototypes
    assert prototypes.std().item() == pytest.approx(0.01, rel=0.02)
    assert abs(prototypes.mean().item()) < 2e-4


def test_one_runaway_length_does_not_move_adafaces_statistics():
    """Lengths count as 0.001 to 100, as in the authors' code."""
    lengths = torch.tensor([1e-9, 20.0, 30.0, 1e6])
    head = AdaFace(4, 3)
    head(torch.eye(4) * lengths[:, None], torch.tensor([0, 1, 2, 0]))
    kept = torch.tensor([1e-3, 20.0, 30.0, 100.0])
    assert head.length_mean.item() == pytest.approx(kept.mean().item(), rel=1e-6)
    assert head.length_std.item() == pytest.approx(kept.std().item(), rel=1e-6)
