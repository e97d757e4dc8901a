"""`--student-module` and `--init-from`: a net of the user's own through every command."""

import csv
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from ekd_lite.__main__ import main
from ekd_lite.commands.own_net import own_net

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv, self.output = nn.Conv2d(3, 4, 5, stride=4), nn.Linear(4, width)

    def forward(self, images):
        return self.output(self.conv(images).relu().mean((2, 3)))

def wide():
    return Net(12)

def with_width(width):
    return Net(width)

def pair(width=3, *, depth):
    return Net(width)

def number():
    return 3

def fails():
    raise RuntimeError("no\\nsuch weights")

made, three = Net(), 3
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A working folder with faces, a module of nets, and modules that cannot be imported."""
    folder = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(0)
    for person in range(20):
        (folder / "faces" / f"p{person:02}").mkdir(parents=True)
        pattern = rng.uniform(30, 220, (16, 16, 3))
        for image in range(4):
            pixels = (pattern + rng.normal(0, 20, pattern.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "faces" / f"p{person:02}" / f"{image}.png")
    (folder / "my_nets.py").write_text(CODE)
    (folder / "my_typo.py").write_text("def (:\n")
    (folder / "my_need.py").write_text("import a_library_that_is_not_there\n")
    return folder


@pytest.fixture(autouse=True)
def here(work, monkeypatch):
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("my_nets", "my_typo", "my_need"):
        sys.modules.pop(name, None)


def run(*arguments):
    return main([str(a) for a in arguments])


TRAIN = ("train", "--faces", "faces", "--image-size", 16, "--steps", 2, "--general", 8)
SMALL = (*TRAIN, "--identities", 3, "--images-per-identity", 2, "--device", "cpu")


@pytest.fixture(scope="module")
def trained(work):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setattr(sys, "path", [*sys.path])
        assert run(*SMALL, "--out", "run", "--student-module", "my_nets:Net") == 0
    return work / "run"


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*eyes are not where aligned"),
    pytest.mark.filterwarnings("ignore:the first batch has too few impostor pairs"),
    pytest.mark.starts_process,  # that cache the faces
]


def test_every_command_reads_it_back(trained, capsys):
    own = ("--student-module", "my_nets:Net")
    files = {"embed": ("--faces", "faces", "--out", "rows.safetensors"), "evaluate": ()}
    faces = ("--faces", "faces", "--fprs", 0.1)
    assert run("embed", "--model", trained, *files["embed"], *own) == 0
    sys.path.insert(0, str(trained.parent))
    net = own_net("my_nets:Net")()
    weights = load_file(trained / "model.safetensors")
    net.load_state_dict(
        {n.removeprefix("backbone."): t for n, t in weights.items() if n.startswith("backbone.")}
    )
    from ekd_lite.data import open_faces
    from ekd_lite.evaluate import embed

    expected = embed(net, open_faces("faces", image_size=16))
    assert torch.equal(load_file("rows.safetensors")["embeddings"], expected)
    assert run("evaluate", "--model", trained, *faces, "--resamples", 0, *own) == 0
    assert "FPR 1e-01: TPR" in capsys.readouterr().out
    assert run("export", trained, "--out", "bare.safetensors", "--to", "safetensors", *own) == 0
    assert run("embed", "--model", "bare.safetensors", *files["embed"], *own) == 0
    assert torch.equal(load_file("rows.safetensors")["embeddings"], expected)
    assert run(*SMALL, "--out", "ours") == 0
    arguments = ("--fprs", 0.1, "--resamples", 20, "--out", "compared", "--faces", "faces")
    assert run("compare", "ours", trained, *arguments, *own) == 0
    with open("compared/compare.csv", encoding="utf-8") as file:
        assert [row["backbone"] for row in csv.DictReader(file)] == ["tiny_student", "own:Net"]
    capsys.readouterr()
    for command in (
        ("embed", "--model", trained, *files["embed"]),
        ("evaluate", "--model", trained, *faces),
        ("export", trained, "--out", "x.onnx"),
        ("compare", "ours", trained, *arguments),
    ):
        assert run(*command) == 2
        assert "Net, and no file holds its code" in capsys.readouterr().err
        assert run(*command, "--student-module", "my_nets:wide") == 2
        assert "does not fit the net that was given: backbone.output" in capsys.readouterr().err


def test_the_finished_run_is_found_and_the_start_is_said(trained, capsys):
    own = ("--student-module", "my_nets:Net")
    before = (trained / "model.safetensors").stat().st_mtime_ns
    assert run(*SMALL, "--out", "run", *own) == 0
    assert (trained / "model.safetensors").stat().st_mtime_ns == before
    assert run(*SMALL, "--out", "run", "--student-module", "my_nets:wide") == 2
    assert "embedding_dim: 12 here, 8 there" in capsys.readouterr().err
    start = ("--init-from", "run", "--out", "second")
    assert run(*SMALL, *start, "--student-module", "my_nets:wide") == 0
    assert "starts from run: 2 of 4 tensors copied (304 of 364 numbers); 2 stay as" in (
        capsys.readouterr().out
    )
    assert run(*SMALL, "--out", "second", "--student-module", "my_nets:wide") == 2
    assert "init_from: none here, digest" in capsys.readouterr().err
    assert run(*SMALL, "--init-from", "nowhere") == 2
    assert "no weights to start from at nowhere" in capsys.readouterr().err
    assert run(*SMALL, *own, "--dry-run") == 0
    assert "parameters   344 in the backbone" in capsys.readouterr().out


WRONG = {
    "my_nets": "takes package.module:callable, got 'my_nets'",
    ":Net": "takes package.module:callable, got ':Net'",
    "my_net:Net": "importing my_net failed, ModuleNotFoundError: No module named 'my_net'",
    "my_need:Net": "importing my_need failed, ModuleNotFoundError: No module named 'a_library_that",
    "my_typo:Net": "importing my_typo failed, SyntaxError: ",
    "my_nets:Nett": "my_nets has no 'Nett'; it has Net, wide, with_width, pair, number, fails",
    "my_nets:with_width": "called without arguments, and missing a required argument: 'width'",
    "my_nets:pair": "missing a required argument: 'depth'; name a function that gives the net",
    "my_nets:number": "the student's function gives int, not an nn.Module",
    "my_nets:fails": "my_nets:fails: no such weights",
    "my_nets:three": "it is no callable but 3",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_called_is_one_line(name, capsys):
    assert run(*SMALL, "--out", "never", "--student-module", name) == 2
    error = capsys.readouterr().err
    assert WRONG[name] in error
    assert error.count("\n") == 1


def test_a_module_itself_and_names_inside_of_others():
    assert isinstance(own_net("my_nets:made"), nn.Module)
    assert isinstance(own_net("torch:nn.Identity")(), nn.Identity)
    assert own_net(None) is None
