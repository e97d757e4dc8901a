"""What is no tensor, and margins that no head can have, are named: every head and function."""

import inspect
import math
from typing import Any

import pytest
import torch

import ekd_lite.heads
from ekd_lite.heads import (
    CIFP,
    HEADS,
    AdaFace,
    ArcFace,
    CurricularFace,
    NormFace,
    PartialFC,
    SphereFace,
    add_angle,
)
from ekd_lite.heads.margin import check_labels

MARGIN = {"sphereface": 2.0}
EMBEDDINGS, LABELS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4)


def others(tensor):
    return tensor.numpy(), tensor.tolist(), "x", None


def make(name):
    return HEADS[name](8, 10, margin=MARGIN.get(name, 0.3))


@pytest.mark.parametrize("name", [*HEADS, "partial"])
def test_heads_want_tensors(name):
    head = PartialFC(ArcFace, 8, 10) if name == "partial" else make(name)
    head(EMBEDDINGS, LABELS)
    for value in others(EMBEDDINGS):
        with pytest.raises(ValueError, match="embeddings must be a torch Tensor, got "):
            head(value, LABELS)
    for value in others(LABELS):
        with pytest.raises(ValueError, match="labels must be a torch Tensor, got "):
            head(EMBEDDINGS, value)
    if name == "partial":
        return
    cosines = head.cosines(EMBEDDINGS).detach()
    for value in others(EMBEDDINGS):
        for call in (head.cosines, head.cosine_logits, getattr(head, "quality", head.cosines)):
            with pytest.raises(ValueError, match="embeddings must be a torch Tensor, got "):
                call(value)
        with pytest.raises(ValueError, match="embeddings must be a torch Tensor, got "):
            head(value, LABELS, cosines=cosines)
    for shape in ((4, 5), (3, 10)):
        with pytest.raises(ValueError, match=r"expected cosines \(4, 10\) in floating point, as "):
            head(EMBEDDINGS, LABELS, cosines=torch.zeros(shape))
    for value in others(cosines)[:3]:
        with pytest.raises(ValueError, match="cosines must be a torch Tensor, got "):
            head(EMBEDDINGS, LABELS, cosines=value)
    for value in others(cosines):
        with pytest.raises(ValueError, match="cosine must be a torch Tensor, got "):
            head.target(value)


def test_functions_want_tensors():
    cosine = torch.linspace(-1, 1, 5)
    assert torch.equal(add_angle(cosine, 0.3), add_angle(cosine, torch.tensor(0.3)))
    for value in others(cosine):
        with pytest.raises(ValueError, match="cosine must be a torch Tensor, got "):
            add_angle(value, 0.3)
    for margin in (28.6, -0.5, math.nan):
        with pytest.raises(ValueError, match=r"from 0 to 3\.142, in radians, got torch\.fl"):
            add_angle(cosine, margin)
    for value in others(LABELS):
        with pytest.raises(ValueError, match="labels must be a torch Tensor, got "):
            check_labels(value, 4, 10)


def test_the_table_of_public_names_is_whole():
    """A new head or function must stand in the tables above."""
    public = {name: getattr(ekd_lite.heads, name) for name in ekd_lite.heads.__all__}
    classes = {value for value in public.values() if inspect.isclass(value)}
    assert classes == {*HEADS.values(), PartialFC}
    assert {n for n, value in public.items() if inspect.isfunction(value)} == {"add_angle"}


@pytest.mark.parametrize("name", HEADS)
def test_margins_in_degrees_and_negative_ones(name):
    for margin in (-0.5, math.nan, -math.inf):
        with pytest.raises(ValueError, match=f"{HEADS[name].__name__}'s margin must lie in"):
            HEADS[name](8, 10, margin=margin)
    if name == "normface":  # it has no use for one
        return
    with pytest.raises(ValueError, match=r"'s margin must lie in .*, got 28\.6"):
        HEADS[name](8, 10, margin=28.6)
    if HEADS[name].forward is NormFace.forward:
        with pytest.raises(ValueError, match=r"'s margin must lie in .*, got 28\.6"):
            PartialFC(HEADS[name], 8, 10, margin=28.6)
    low, high, _ = HEADS[name].margins
    for margin in (low, high):
        assert HEADS[name](8, 10, margin=margin).margin == margin


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_scales_that_no_head_can_have(scale):
    with pytest.raises(ValueError, match="scale > 0"):
        ArcFace(8, 10, scale=scale)


@pytest.mark.parametrize("name", [*HEADS, "partial"])
def test_embeddings_of_other_kinds(name):
    head = PartialFC(ArcFace, 8, 10) if name == "partial" else make(name)
    for bad in (EMBEDDINGS.long(), EMBEDDINGS + 0j, EMBEDDINGS > 0):
        with pytest.raises(ValueError, match="in floating point"):
            head(bad, LABELS)
    with pytest.raises(ValueError, match=r"float64 and the head's prototypes torch\.float32"):
        head(EMBEDDINGS.double(), LABELS)
    assert head.double()(EMBEDDINGS.double(), LABELS).isfinite().all()


@pytest.mark.parametrize("name", HEADS)
def test_a_length_beyond_float32_does_not_pass_for_none(name):
    """Ten to the thirtieth times an embedding was a row of zeros, with a finite loss."""
    assert make(name)(1e30 * EMBEDDINGS, LABELS).isnan().any()


@pytest.mark.parametrize("bad", [0, -3, 2.5, "8", None, True])
def test_sizes_are_whole_numbers(bad):
    for sizes in ((bad, 8), (8, bad)):
        with pytest.raises(ValueError, match="embedding_dim >= 1, num_identities >= 1"):
            ArcFace(*sizes)


@pytest.mark.parametrize("bad", ["0.3", None, [0.3], True])
def test_margins_and_scales_are_numbers(bad):
    with pytest.raises(ValueError, match="margin must lie in"):
        ArcFace(8, 8, margin=bad)
    with pytest.raises(ValueError, match="scale > 0"):
        ArcFace(8, 8, scale=bad)


@pytest.mark.parametrize(
    ("make_head", "options"),
    [
        (SphereFace, "blend"),
        (CurricularFace, "momentum"),
        (AdaFace, "momentum"),
        (AdaFace, "concentration"),
        (CIFP, "fpr"),
    ],
)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -1, "a", [0.1], True])
def test_options_of_one_head_are_numbers(make_head, options, bad):
    with pytest.raises(ValueError, match=options):
        make_head(8, 8, **{options: bad})


@pytest.mark.parametrize("name", HEADS)
def test_labels_of_unsigned_types_and_complex_ones(name):
    head = make(name).eval()
    want = head(EMBEDDINGS, LABELS)
    for dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64):
        assert torch.equal(head(EMBEDDINGS, LABELS.to(dtype)), want)
    with pytest.raises(ValueError, match="of int64, got"):
        head(EMBEDDINGS, LABELS + 0j)


def test_a_sharded_head_asks_for_its_options():
    bad: Any
    for bad in (None, "a", ArcFace(8, 8), torch.nn.Linear):
        with pytest.raises(ValueError, match="head must be a class such as ArcFace"):
            PartialFC(bad, 8, 8)
    for options in ({"sample_rate": "a"}, {"sample_rate": math.nan}, {"seed": -1}, {"seed": 1.5}):
        with pytest.raises(ValueError, match=r"sample_rate must lie in|seed >= 0"):
            PartialFC(ArcFace, 8, 8, **options)
    with pytest.raises(ValueError, match="floating point and a margin"):
        add_angle(torch.ones(2) + 0j, 0.1)
