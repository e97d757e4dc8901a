"""AdamW and SGD by rows: torch's own where all rows have a gradient; the others rest."""

import contextlib
import copy

import pytest
import torch

from benchmarks.comparing import as_on_a_gpu, small_state
from ekd_lite.train import train_step
from ekd_lite.train.rowwise import BLOCK, RowwiseAdamW, RowwiseSGD, coalesced

KINDS = [
    (RowwiseAdamW, torch.optim.AdamW, {"lr": 0.03, "weight_decay": 0.1}),
    (RowwiseSGD, torch.optim.SGD, {"lr": 0.03, "weight_decay": 0.1, "momentum": 0.9}),
]


def tables(count=7):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    gradients = torch.randn(6, count, 3, generator=generator, dtype=torch.float64)
    return start, gradients


def sparse(grad, rows):
    return torch.sparse_coo_tensor(rows[None], grad[rows], grad.shape, check_invariants=True)


@pytest.mark.parametrize(("ours", "torchs", "options"), KINDS)
def test_with_all_rows_it_is_torchs_optimizer(ours, torchs, options):
    """Beside another parameter with a dense gradient; and going on with torch's own state."""
    start, gradients = tables()
    one, other = ([torch.nn.Parameter(start.clone()) for _ in range(2)] for _ in range(2))
    by_rows, plain = ours(one, **options), torchs(other, **options)
    for step, grad in enumerate(gradients):
        rows = torch.randperm(7, generator=torch.Generator().manual_seed(step))
        one[0].grad, one[1].grad = sparse(grad, rows), grad.clone()
        for parameter in other:
            parameter.grad = grad.clone()
        by_rows.step()
        plain.step()
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
        assert one[0].grad.is_sparse
    kept, wanted = (optimizer.state_dict()["state"] for optimizer in (by_rows, plain))
    assert kept[0].keys() == wanted[0].keys()
    by_rows.load_state_dict(copy.deepcopy(plain.state_dict()))
    one[0].grad = one[1].grad = other[0].grad = other[1].grad = gradients[0]
    by_rows.step()  # dense, as where a share of the prototypes is all of them
    plain.step()
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("ours", "torchs", "options"), KINDS)
def test_rows_without_gradient_rest_and_the_others_do_not_notice(ours, torchs, options):
    start, gradients = tables()
    table, few = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start[[1, 4]].clone())
    by_rows, plain = ours([table], **options), torchs([few], **options)
    for grad in gradients:
        table.grad, few.grad = sparse(grad, torch.tensor([4, 1])), grad[[1, 4]]
        by_rows.step()
        plain.step()
    torch.testing.assert_close(table[[1, 4]], few, rtol=1e-12, atol=1e-14)
    others = [0, 2, 3, 5, 6]
    assert torch.equal(table[others], start[others])


@pytest.mark.parametrize("on_a_gpu", [False, True])
@pytest.mark.parametrize(("ours", "torchs", "options"), KINDS)
def test_many_rows_are_updated_as_few_are(ours, torchs, options, on_a_gpu):
    """More than one block, the last a part of one, in any order; and the way without blocks."""
    generator = torch.Generator().manual_seed(0)
    count = 3 * BLOCK + 5
    start = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    rows = torch.randperm(count, generator=generator)[: 2 * BLOCK + 3]
    table, few = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start[rows])
    by_rows, plain = ours([table], **options), torchs([few], **options)
    for _ in range(4):
        grad = torch.randn(start.shape, generator=generator, dtype=torch.float64)
        table.grad, few.grad = sparse(grad, rows), grad[rows]
        with as_on_a_gpu() if on_a_gpu else contextlib.nullcontext():
            by_rows.step()
        plain.step()
    torch.testing.assert_close(table[rows], few, rtol=1e-12, atol=1e-14)
    rest = torch.ones(count, dtype=torch.bool)
    rest[rows] = False
    assert torch.equal(table[rest], start[rest])


@pytest.mark.parametrize(("ours", "torchs", "options"), KINDS)
def test_a_type_that_numpy_has_not(ours, torchs, options):
    start, gradients = tables()
    table, few = (torch.nn.Parameter(x.bfloat16()) for x in (start, start[[1, 4]]))
    grad, rows = gradients[0].bfloat16(), torch.tensor([1, 4])
    table.grad, few.grad = sparse(grad, rows), grad[rows]
    ours([table], **options).step()
    torchs([few], **options).step()
    torch.testing.assert_close(table[rows], few, rtol=0.02, atol=0.02)
    assert not torch.equal(table[rows], start[rows].bfloat16())


def test_autograd_notices_that_rows_were_updated():
    table = torch.nn.Parameter(torch.ones(3, 2))
    loss = table.square().sum()
    table.grad = sparse(torch.ones(3, 2), torch.tensor([1]))
    RowwiseAdamW([table]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_rows_in_order_are_not_copied_and_others_are_added_up():
    values = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    for rows in ([0, 2, 4], [4, 0, 2], [1, 1, 3]):
        given = torch.sparse_coo_tensor(torch.tensor([rows]), values, (5, 2), check_invariants=True)
        found = coalesced(given)
        dense = torch.zeros(5, 2).index_add(0, torch.tensor(rows), values)
        assert torch.equal(found.to_dense(), dense)
        assert found.is_coalesced() and found.indices()[0].tolist() == sorted(set(rows))
        assert (found.values().data_ptr() == given._values().data_ptr()) == (rows == [0, 2, 4])


@pytest.mark.parametrize(("ours", "torchs", "options"), KINDS)
def test_a_row_that_stands_twice_is_added_up(ours, torchs, options):
    """As after two batches whose gradients were accumulated."""
    start, gradients = tables()
    one, other = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    rows = torch.tensor([2, 5, 2])
    one.grad = torch.sparse_coo_tensor(
        rows[None], gradients[0][:3], start.shape, check_invariants=True
    )
    summed = torch.zeros_like(start).index_add(0, rows, gradients[0][:3])
    other.grad = sparse(summed, torch.tensor([2, 5]))
    for parameter in (one, other):
        ours([parameter], **options).step()
    assert torch.equal(one, other)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("batches", [1, 2])
def test_steps_with_a_share_move_the_rows_that_took_part(optimizer, batches):
    state, batch = small_state(
        "none", torch.device("cpu"), share=0.5, optimizer=optimizer, accumulate=batches,
        clip_norm=0.1,
    )  # fmt: skip
    group = [batch(number) for number in range(batches)]
    for part in group:
        part.labels.clamp_(max=2)  # 3 of 12 people, and 3 more are drawn for each batch
    before = state.head.prototypes.detach().clone()
    train_step(state, *group)
    moved = (state.head.prototypes != before).any(dim=1)
    assert moved[:3].all() and 6 <= int(moved.sum()) <= 9


def test_the_length_of_a_sparse_gradient_is_that_of_the_dense_one():
    weights = []
    for is_sparse in (True, False):
        state, batch = small_state("none", torch.device("cpu"), share=0.5, clip_norm=0.05)
        state.head.sparse = is_sparse
        train_step(state, batch(0))
        weights.append([p.detach().clone() for p in state.backbone.parameters()])
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-7)
