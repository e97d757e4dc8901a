"""Anybody's net learns, is saved and read back; what cannot learn is refused before step 1."""

import copy
import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from ekd_lite.heads import ArcFace
from ekd_lite.models import build_backbone
from ekd_lite.train import (
    TrainConfig,
    build_state,
    fit,
    learning_rate_at,
    load_backbone,
    load_model,
    margin_at,
    save_backbone,
)
from ekd_lite.train.batches import build_sampler
from ekd_lite.train.student import build_student
from tests.fakes import ColourFaces

SMALL: dict[str, Any] = {
    "image_size": 16,
    "general": 8,
    "identities": 4,
    "images_per_identity": 3,
    "steps": 4,
    "checkpoint_every": 2,
    "device": "cpu",
}
FACES = ColourFaces()
pytestmark = pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs")


class Own(nn.Module):
    """A net that anybody may have; tied weights, a frozen part and one that nothing uses."""

    def __init__(self, width=6, channels=4, give=lambda rows, net: rows):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=4)
        self.norm = nn.BatchNorm2d(channels)
        self.inner = nn.Linear(channels, channels, bias=False)
        self.again = self.inner
        self.output = nn.Linear(channels, width)
        self.output.bias.requires_grad_(False)
        self.unused = nn.Linear(2, 2)
        self.give = give

    def forward(self, images):
        maps = self.norm(self.stem(images)).relu()
        rows = self.again(self.inner(maps.mean((2, 3))).relu())
        return self.give(self.output(rows), self)


def train(out, student, config=None, **options):
    return fit(
        config or TrainConfig(**SMALL), FACES, out, student=student, progress=False, **options
    )


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def built():
    return build_backbone("tiny_student", embedding_dim=16, image_size=16)


def test_a_function_that_makes_a_net_of_ours_trains_it_to_the_same_bits(tmp_path):
    """The seed decides its weights, and what is drawn after them as for the net by its name."""
    config = TrainConfig(**SMALL, embedding_dim=16, seed=3)
    train(tmp_path / "own", built, config)
    fit(config, FACES, tmp_path / "ours", progress=False)
    own, ours = (load_file(tmp_path / name / "model.safetensors") for name in ("own", "ours"))
    assert own.keys() == ours.keys()
    assert all(torch.equal(own[name], ours[name]) for name in own)


def test_head_and_net_are_drawn_one_after_the_other():
    config = TrainConfig(**SMALL, embedding_dim=16, seed=3)
    torch.manual_seed(3)
    net, head = built(), ArcFace(16, 12)
    for student in (None, built):
        state = build_state(config, 12, None, "cpu", student=student)
        assert same(state.backbone, net)
        assert torch.equal(state.head.prototypes, head.prototypes)


def test_a_module_is_trained_as_a_plain_loop_trains_it(tmp_path):
    config = TrainConfig(**SMALL, optimizer="sgd", learning_rate=0.1, seed=5)
    net = Own()
    plain = copy.deepcopy(net)
    model = load_model(train(tmp_path, net, config), student=Own())
    torch.manual_seed(5)
    head = ArcFace(6, 12, scale=config.scale, margin=config.margin)
    groups = [
        {"params": [p for p in (*plain.parameters(), *head.parameters()) if p.requires_grad
                    and (p.ndim > 1) == decayed], "weight_decay": config.weight_decay * decayed}
        for decayed in (True, False)
    ]  # fmt: skip
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    batches = iter(build_sampler(config, FACES.labels))
    for step in range(4):
        index = torch.as_tensor(next(batches))
        head.margin = margin_at(step, config)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, config)
        optimizer.zero_grad()
        logits = head(plain(FACES.batch(index)), FACES.labels[index])
        F.cross_entropy(logits, FACES.labels[index]).backward()
        optimizer.step()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(model.backbone.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    assert not torch.equal(plain.stem.weight, Own().stem.weight)
    assert same(net, model.backbone)  # trained in place


def test_the_file_gives_it_back_to_who_has_the_code(tmp_path):
    net = Own()
    path = train(tmp_path, net)
    info = json.loads((tmp_path / "config.json").read_text())
    assert (info["backbone"], info["embedding_dim"]) == ("own:Own", 6)
    given = Own()
    model = load_model(path, student=given)
    assert model.backbone is given
    assert not given.training
    assert same(given, net)
    assert given.again is given.inner
    save_backbone(tmp_path / "bare.safetensors", given, model.info)
    for source in (path, tmp_path, tmp_path / "bare.safetensors"):
        backbone, info = load_backbone(source, student=Own)  # a class makes one too
        assert same(backbone, net)
        assert info["backbone"] == "own:Own"
        with pytest.raises(ValueError, match=r"somebody's own, Own, .*student=net.*--student-mod"):
            load_backbone(source)
    with pytest.raises(ValueError, match=r"somebody's own, Own, "):
        load_model(path)


def test_other_shapes_are_named_and_the_module_stays_as_it_was(tmp_path):
    path = train(tmp_path, Own())
    other = Own(channels=5)
    before = copy.deepcopy(other)
    with pytest.raises(
        ValueError,
        match=r"does not fit the net that was given: 9 tensors differ, "
        r"such as backbone.stem.weight is \(5, 3, 3, 3\) in the net, \(4, 3, 3, 3\)",
    ):
        load_model(path, student=other)  # fmt: skip
    assert same(other, before)
    fewer = Own()
    del fewer.unused
    with pytest.raises(ValueError, match=r"backbone.unused.weight is nothing in the net, \(2, 2\)"):
        load_backbone(path, student=fewer)
    for wrong in (3, lambda: 3):
        with pytest.raises(ValueError, match=r"expected as student an nn.Module|gives int, not"):
            load_model(path, student=wrong)  # type: ignore[arg-type]


class Killed(Exception):
    pass


def kill(state, metrics):
    if state.step == 3:
        raise Killed


def test_a_run_goes_on_with_the_same_net_only(tmp_path):
    """Weights of the net that is handed over anew do not count: the checkpoint has them."""
    start = Own()
    whole = load_model(train(tmp_path / "whole", copy.deepcopy(start)), student=Own())
    with pytest.raises(Killed):
        train(tmp_path / "run", copy.deepcopy(start), on_step=kill)
    with pytest.raises(
        ValueError,
        match=r"student: Own of 13 tensors .* here, Own of 13 .* there\n"
        r"  9 tensors differ, such as stem.weight is \(5, 3, 3, 3\) here",
    ):
        train(tmp_path / "run", Own(channels=5))  # fmt: skip
    with pytest.raises(ValueError, match="backbone: 'tiny_student' here, 'own:Own' there"):
        fit(TrainConfig(**SMALL), FACES, tmp_path / "run", progress=False)
    for _ in range(2):  # the second finds it finished
        path = train(tmp_path / "run", Own())
        assert same(load_model(path, student=Own()).backbone, whole.backbone)
    with pytest.raises(ValueError, match="student: Own"):
        train(tmp_path / "run", Own(channels=5))
    config = TrainConfig.from_json((tmp_path / "run" / "config.json").read_text())
    with pytest.raises(ValueError, match=r"somebody's own net \(own:Own\), .* student=net"):
        fit(config, FACES, tmp_path / "run", progress=False)
    train(tmp_path / "run", Own(), config)  # what it wrote describes it


@pytest.mark.filterwarnings("ignore:.* no more than the student's")
def test_it_learns_under_a_teacher(tmp_path):
    rows = torch.randn(72, 10, generator=torch.Generator().manual_seed(0))
    config = TrainConfig(**SMALL, method="fitnet+ekd", channels_last=False)
    path = train(tmp_path, Own, config, teacher=rows)
    assert load_model(path, student=Own).info["method"] == "fitnet+ekd"
    student = Own()
    for teacher in (student, nn.Sequential(student.stem, nn.AvgPool2d(4), nn.Flatten())):
        with pytest.raises(ValueError, match=r"share \d+ weights \(stem.weight, .*deepcopy"):
            train(tmp_path / "x", student, config, teacher=teacher)


def test_trying_it_out_leaves_no_trace():
    net = nn.Sequential(Own(), nn.Dropout(0.5))
    net[0].norm.eval()
    before = copy.deepcopy(net)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    student = build_student(TrainConfig(**SMALL, seed=1), net)
    torch.set_rng_state(student.generator)
    assert torch.equal(torch.rand(3), expected)
    assert same(net, before)
    assert [m.training for m in net.modules()] == [m.training for m in before.modules()]
    assert all(p.grad is None for p in net.parameters())
    assert student.idle == ("0.unused.weight", "0.unused.bias")


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(6))


def frozen():
    return Own().requires_grad_(False)


def with_nan():
    net = Own()
    net.norm.running_var[1] = torch.nan
    return net


class Extra(Own):
    def get_extra_state(self):
        return {"version": 3}


GIVES: dict[str, tuple[Any, str]] = {
    "a classifier's tuple": (lambda rows, net: (rows, rows), "gives a tuple of 2"),
    "a dictionary": (lambda rows, net: {"embedding": rows}, "gives a dict of 1"),
    "a feature map": (lambda rows, net: rows[:, :, None, None], r"gives \(4, 6, 1, 1\) for 4"),
    "a batch of one squeezed": (lambda rows, net: rows.squeeze(), r"gives \(6,\) for 1 images"),
    "a width by the batch": (lambda rows, net: rows[:, : len(rows)], "4 numbers wide .* 1 for one"),
    "classes": (lambda rows, net: rows.argmax(1, keepdim=True), "gives torch.int64"),
    "more in training": (
        lambda rows, net: (rows, rows) if net.training else rows,
        "cannot be used in training mode: the net gives a tuple",
    ),
    "double": (lambda rows, net: rows.double(), r"gives embeddings in float64.* rows\.float\(\)"),
    "NaN": (lambda rows, net: rows / 0, "gives NaN or infinite embeddings"),
    "no gradient": (lambda rows, net: rows.detach(), "embeddings have no gradient"),
}
NETS: dict[str, tuple[Any, str]] = {
    "a lazy module": (lazy, r"1\.weight has no shape yet \(a lazy module\)"),
    "no parameters": (nn.Flatten, "cannot learn: it has no parameters"),
    "frozen": (frozen, r"cannot learn: all \d+ parameters are frozen"),
    "double": (lambda: Own().double(), r"weights are torch.float64 .*: expected float32"),
    "half": (lambda: Own().half(), r"weights are torch.float16 \(stem.weight\): expected float32"),
    "NaN weights": (with_nan, "norm.running_var holds NaN"),
    "no memory": (lambda: Own().to("meta"), r"stem.weight has no memory \(device meta\)"),
    "other state": (
        Extra,
        r"state holds _extra_state \(.*dict.*\): model files hold plain tensors",
    ),
    "another size": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(5, 6)),
        r"the student Sequential cannot embed images \(4, 3, 16, 16\): mat1 and mat2",
    ),
    "no module": (lambda: 3, "function gives int, not an nn.Module"),
    **{name: (lambda give=give: Own(give=give), text) for name, (give, text) in GIVES.items()},
}


@pytest.mark.parametrize("what", NETS)
def test_what_cannot_learn_is_one_clear_message(tmp_path, what):
    make, message = NETS[what]
    with pytest.raises(ValueError, match=message) as caught:
        train(tmp_path / "run", make)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_name_of_a_net_of_ours_stays_checked():
    with pytest.raises(ValueError, match="unknown backbone 'owned'"):
        TrainConfig(backbone="owned")
    with pytest.raises(ValueError, match=r"expected as student an nn.Module, .* got str"):
        build_student(TrainConfig(**SMALL), "iresnet50")
