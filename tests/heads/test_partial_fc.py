"""PartialFC in one process; several are in tests/train/test_distributed.py."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ekd_lite.heads import (
    AdaFace,
    ArcFace,
    CosFace,
    CurricularFace,
    NormFace,
    PartialFC,
    SphereFace,
)
from ekd_lite.heads.margin_softmax import margin_softmax
from ekd_lite.heads.partial_fc import _places_of_largest
from ekd_lite.ops import unit_rows


def make(head=ArcFace, rate=1.0, identities=50, seed=0, **options):
    made = PartialFC(head, 8, identities, scale=16.0, sample_rate=rate, seed=seed, **options)
    return made.double()


def batch(rows=12, identities=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    return x, torch.randint(identities, (rows,), generator=generator)


@pytest.mark.parametrize("head", [NormFace, SphereFace, CosFace, ArcFace])
def test_all_identities_are_the_ordinary_head(head):
    split = make(head, margin=1.5 if head is SphereFace else 0.3)
    whole = head(8, 50, scale=16.0, margin=split.margin).double()
    whole.prototypes.data.copy_(split.prototypes.data)
    embeddings, labels = batch()
    for module, loss in (
        (split, split(embeddings, labels)),
        (whole, F.cross_entropy(whole(embeddings, labels), labels)),
    ):
        module.found = (loss, *torch.autograd.grad(loss, [embeddings, module.prototypes]))
    for one, other in zip(split.found, whole.found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 10_000))
def test_the_closed_form_is_autograd(rows, columns, seed):
    """Against the formula written down plainly, in float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    w = torch.randn(columns, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(columns, (rows,), generator=generator)
    head = ArcFace(5, columns, scale=30.0, margin=0.4)
    loss = margin_softmax(
        unit_rows(x), w, row=torch.arange(rows), column=labels, target=head.target, scale=30.0
    )
    cosines = unit_rows(x) @ unit_rows(w).T
    logits = 30 * cosines.scatter(
        1, labels[:, None], head.target(cosines.gather(1, labels[:, None]))
    )
    wanted = F.cross_entropy(logits, labels)
    torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=1e-12)
    for got, expected in zip(
        *(torch.autograd.grad(y, [x, w]) for y in (loss, wanted)), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_a_dead_prototype_gets_no_gradient():
    split = make(identities=5)
    with torch.no_grad():
        split.prototypes[2] = 0
    embeddings, labels = batch(identities=5)
    split(embeddings, labels).backward()
    assert (split.prototypes.grad[2] == 0).all()
    assert split.prototypes.grad.isfinite().all()
    assert embeddings.grad.isfinite().all()


def test_gradcheck():
    split = make(identities=7)
    embeddings, labels = batch(rows=4, identities=7)
    prototypes = split.prototypes

    def loss(x, w):
        with torch.no_grad():
            prototypes.copy_(w)
        split.shard._parameters["prototypes"] = w
        return split(x, labels)

    w = torch.randn(7, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (embeddings, w))


def test_a_sample_holds_the_batch_and_its_share_of_the_rest():
    split = make(rate=0.2)
    embeddings, labels = batch(rows=6)
    drawn = set()
    for _ in range(20):
        split.prototypes.grad = None
        split(embeddings, labels).backward()
        rows = split.prototypes.grad.abs().sum(dim=1).nonzero().flatten().tolist()
        assert set(labels.tolist()) <= set(rows)
        assert len(rows) == 10  # a fifth of 50
        drawn |= set(rows)
    assert len(drawn) > 40  # another tenth every time


def test_more_identities_in_the_batch_than_the_share_are_all_kept():
    split = make(rate=0.02)
    embeddings, labels = batch(rows=12)
    split(embeddings, labels).backward()
    rows = split.prototypes.grad.abs().sum(dim=1).nonzero().flatten()
    assert sorted(set(labels.tolist())) == rows.tolist()


def test_a_sample_is_the_softmax_over_its_identities():
    split = make(rate=0.3)
    embeddings, labels = batch(rows=5)
    loss = split(embeddings, labels)
    loss.backward()
    chosen = split.prototypes.grad.abs().sum(dim=1).nonzero().flatten()
    whole = ArcFace(8, len(chosen), scale=16.0).double()
    whole.prototypes.data.copy_(split.prototypes.data[chosen])
    place = torch.searchsorted(chosen, labels)
    torch.testing.assert_close(loss, F.cross_entropy(whole(embeddings, place), place))


def test_a_partition_draws_whom_a_sort_draws():
    """Also where several are equal to the last that is in."""
    rng = np.random.default_rng(0)
    for values in (rng.random(300), rng.integers(0, 9, 300) / 9.0):
        for count in (1, 30, 299, 300):
            found = _places_of_largest(torch.from_numpy(values), count).tolist()
            assert found == sorted(set(found))
            assert sorted(values[found]) == sorted(values)[-count:]


def test_a_second_derivative_is_refused():
    """The closed form gives the first one; what autograd made of it would be another function."""
    embeddings, labels = batch()
    split = make(rate=1.0)
    (first,) = torch.autograd.grad(split(embeddings, labels), split.prototypes, create_graph=True)
    with pytest.raises(RuntimeError, match=r"does not require grad|once_differentiable"):
        first.sum().backward()


def test_the_sparse_gradient_is_the_dense_one():
    found = []
    for sparse in (False, True):
        split = make(rate=0.2, sparse=sparse)
        split(*batch(rows=4)).backward()
        assert split.prototypes.grad.is_sparse == sparse
        found.append(split.prototypes.grad.to_dense())
    assert torch.equal(*found)
    assert found[0].abs().sum() > 0


def test_draws_are_a_function_of_seed_and_step():
    def losses(seed, start=0):
        split = make(rate=0.2, seed=seed)
        split.prototypes.data.copy_(make(seed=0).prototypes.data)
        split.step.fill_(start)
        return [split(*batch(rows=4)).item() for _ in range(4)]

    assert losses(0) == losses(0)
    assert losses(0)[2:] == losses(0, start=2)[:2]
    assert losses(0) != losses(1)
    assert len(set(losses(0))) == 4


def test_evaluation_looks_at_all_and_counts_nothing():
    split = make(rate=0.2).eval()
    embeddings, labels = batch()
    assert split(embeddings, labels) == split(embeddings, labels)
    assert split.step == 0
    full = make(rate=1.0)
    full.prototypes.data.copy_(split.prototypes.data)
    torch.testing.assert_close(split(embeddings, labels), full(embeddings, labels))


@pytest.mark.parametrize("label", [-1, 50, 2**24 + 1])
def test_a_label_out_of_range_is_named(label):
    """insightface's PartialFC_V2 accepts it and trains on nothing (STYLE B14)."""
    embeddings, labels = batch()
    labels[3] = label
    with pytest.raises(ValueError, match=rf"label {label} at position 3 is not in 0\.\.49"):
        make()(embeddings, labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_are_compared_in_full(dtype):
    split = PartialFC(ArcFace, 8, 50, scale=64.0)
    embeddings, labels = batch()
    half = embeddings.detach().to(dtype)
    with torch.autocast("cpu", dtype):
        got = split(half, labels)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, split(half.float(), labels))


@pytest.mark.parametrize("head", [CurricularFace, AdaFace])
def test_heads_that_look_at_more_are_refused(head):
    with pytest.raises(ValueError, match=f"{head.__name__} looks at more"):
        PartialFC(head, 8, 50)


@pytest.mark.parametrize("rate", [0.0, -1.0, 1.1])
def test_a_bad_rate_is_refused(rate):
    with pytest.raises(ValueError, match="sample_rate"):
        PartialFC(ArcFace, 8, 50, sample_rate=rate)
