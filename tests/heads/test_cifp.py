"""CIFP: the authors' numbers, who is penalised, and a threshold that all processes share."""

import datetime
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from ekd_lite.heads import CIFP, CosFace
from tests.distill.batches import golden_batch
from tests.heads.test_heads import cifp_rows
from tests.processes import launch


def golden_head(classes, dim, **options):
    head = CIFP(dim, classes, **options).double()
    k, j = torch.arange(classes).double()[:, None], torch.arange(dim).double()
    head.prototypes.data = torch.sin(0.11 * (k + 1) * (j + 2))
    return head


@pytest.mark.parametrize(
    ("rows", "dim", "fpr", "loss", "of_rows", "of_prototypes"),
    [
        (16, 8, None, 39.74587947, 7.4902986, 12.345663),
        (16, 8, 0.2, 39.70832082, 7.4936753, 12.345652),
        (64, 16, None, 51.13745784, 5.6231133, 3.2926225),
        (64, 16, 0.02, 51.22527847, 5.820054, 3.2927073),
        (64, 16, 0.2, 51.08288035, 5.5883645, 3.289416),
    ],
)
def test_the_authors_numbers(rows, dim, fpr, loss, of_rows, of_prototypes):
    """The equations of TFace's program, run once in float64."""
    embeddings, _, labels = golden_batch(rows, dim)
    embeddings.requires_grad_()
    head = golden_head(rows // 4, dim, fpr=fpr)
    value = F.cross_entropy(head(embeddings, labels), labels)
    value.backward()
    assert value.item() == pytest.approx(loss, rel=1e-8)
    assert embeddings.grad.norm().item() == pytest.approx(of_rows, rel=1e-6)
    assert head.prototypes.grad.norm().item() == pytest.approx(of_prototypes, rel=1e-6)
    cosines = head.cosines(embeddings).tolist()
    want = torch.tensor(cifp_rows(cosines, labels.tolist(), fpr))
    torch.testing.assert_close(head(embeddings, labels).float(), want, rtol=1e-6, atol=1e-5)


def test_only_images_with_false_accepts_get_more_than_cosface():
    generator = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(20, 16, generator=generator), dim=1)
    labels = torch.arange(20).repeat_interleave(3)
    rows = centres[labels] + 0.1 * torch.randn(60, 16, generator=generator)
    rows[0] = centres[0] + 0.9 * centres[7]  # nearly somebody else
    heads = [kind(16, 20) for kind in (CosFace, CIFP)]
    for head in heads:
        head.prototypes.data = centres.clone()
    plain, with_penalty = (head(rows, labels) for head in heads)
    own = labels[:, None]
    lower = (plain - with_penalty).gather(1, own)[:, 0]
    others = torch.ones_like(plain, dtype=torch.bool).scatter(1, own, False)
    assert torch.equal(plain[others], with_penalty[others])
    assert (lower >= 0).all() and lower.argmax() == 0 and lower[0] > 20
    tight = CIFP(16, 20, fpr=1e-3)  # two of 1,140 pairs, of which one is above the other
    tight.prototypes.data = centres.clone()
    assert ((plain - tight(rows, labels)).gather(1, own)[:, 0] > 0).sum() == 1


def test_edges_and_bad_rates():
    head = CIFP(4, 1)
    assert torch.allclose(head(torch.ones(2, 4), torch.zeros(2).long()),
                          head.cosine_logits(torch.ones(2, 4)) - 64 * 0.35)  # fmt: skip
    assert CIFP(4, 3)(torch.zeros(0, 4), torch.zeros(0).long()).shape == (0, 3)
    assert CIFP(4, 3, fpr=1.0)(torch.ones(2, 4), torch.tensor([0, 1])).isfinite().all()
    for fpr in (0.0, -0.1, 1.5):
        with pytest.raises(ValueError, match=r"fpr must lie in \(0, 1\]"):
            CIFP(4, 3, fpr=fpr)


def work(rank, path):
    folder = Path(path)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=60),
    )
    embeddings, _, labels = golden_batch(64, 16)
    half = slice(0, 32) if rank == 0 else slice(32, 64)
    logits = golden_head(16, 16)(embeddings[half], labels[half])
    torch.save(logits.detach(), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.starts_process
def test_two_processes_share_one_threshold(tmp_path):
    launch(work, str(tmp_path), ranks=2, log=tmp_path / "log")
    parts = torch.cat([torch.load(tmp_path / f"{rank}.pt") for rank in range(2)])
    embeddings, _, labels = golden_batch(64, 16)
    assert torch.allclose(parts, golden_head(16, 16)(embeddings, labels), rtol=1e-12)
    alone = golden_head(16, 16)(embeddings[:32], labels[:32])
    assert not torch.allclose(parts[:32], alone, rtol=1e-6)
