"""The identity loss of training: in closed form where there are many identities."""

import pytest
import torch
import torch.nn.functional as F

from ekd_lite.heads import HEADS, ArcFace, NormFace, margin_softmax
from ekd_lite.heads.margin_softmax import has_closed_form
from ekd_lite.train import objective
from ekd_lite.train.objective import identity_loss

CLOSED = ["normface", "sphereface", "cosface", "arcface"]


@pytest.fixture
def calls(monkeypatch):
    """How often the closed form is used; from 30 identities on."""
    found = []
    original = margin_softmax.closed_form_loss
    monkeypatch.setattr(objective, "MANY_IDENTITIES", 30)
    monkeypatch.setattr(objective, "closed_form_loss", lambda *x: found.append(1) or original(*x))
    return found


def batch(rows=12, width=8, people=40):
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, width, generator=generator, dtype=torch.float64, requires_grad=True)
    return x, torch.randint(people, (rows,), generator=generator)


@pytest.mark.parametrize("name", HEADS)
def test_the_loss_is_the_readable_head(name, calls):
    torch.manual_seed(0)
    head = HEADS[name](8, 40, scale=16.0).double().eval()  # heads that count rest
    x, labels = batch()
    loss = identity_loss(head, x, labels)
    wanted = F.cross_entropy(head(x, labels), labels)
    assert bool(calls) == (name in CLOSED) == has_closed_form(HEADS[name])
    for one, other in zip(
        *([y, *torch.autograd.grad(y, [x, head.prototypes])] for y in (loss, wanted)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_it_is_the_readable_head_itself_where_logits_are_known_or_people_few(calls):
    head, (x, labels) = ArcFace(8, 40).double(), batch()
    identity_loss(head, x, labels, head.cosines(x))
    few = ArcFace(8, 29).double()
    identity_loss(few, x, labels % 29)
    assert not calls


def test_recorded_runs_have_fewer_people():
    """LFW's 5,749 are the most of any table in data/results."""
    assert objective.MANY_IDENTITIES > 5749


def test_other_processes_have_no_part_in_it(calls, monkeypatch):
    """Each process has all prototypes and rows of its own: nothing is sent."""

    def sent(*_):
        raise AssertionError("sent")

    monkeypatch.setattr(margin_softmax, "max_over_ranks", sent)
    monkeypatch.setattr(margin_softmax, "sum_over_ranks", sent)
    x, labels = batch()
    identity_loss(ArcFace(8, 40).double(), x, labels).backward()
    assert calls


def test_a_head_that_changes_its_cosines_keeps_them():
    class Bent(NormFace):
        def cosines(self, embeddings):
            return super().cosines(embeddings) ** 3

    assert not has_closed_form(Bent)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (torch.randn(3, 7), torch.tensor([0, 1, 2]), r"expected embeddings \(N, 8\)"),
        (torch.randn(3, 8), torch.tensor([0, 1, 40]), "label 40 at position 2"),
        (torch.randn(3, 8), torch.tensor([0.0, 1.0, 2.0]), "labels"),
    ],
)
def test_wrong_input_is_named_as_ever(calls, rows, labels, message):
    with pytest.raises(ValueError, match=message):
        identity_loss(ArcFace(8, 40), rows, labels)
    assert calls
