"""`embed` gives one row an image, in order, or says what it expects."""

import contextlib
import importlib
import io
import tarfile
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.comparing import as_on_a_gpu
from ekd_lite.data import (
    ImageFolder,
    PackedFaces,
    Shards,
    SyntheticFaces,
    convert,
    open_faces,
)
from ekd_lite.data.ahead import as_floats
from ekd_lite.data.pair_lists import Subset
from ekd_lite.data.splits import Selection
from ekd_lite.data.verification import EncodedFaces
from ekd_lite.evaluate import embed
from ekd_lite.evaluate.embedding import embed_views
from tests.fakes import ColourFaces

FACES = ColourFaces()


class Net(nn.Module):
    """Pixels of the first 16 rows and columns times a matrix; `change` is what it gives of it."""

    def __init__(self, change=lambda x: x):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3 * 16 * 16, 8, generator=generator))
        self.change = change

    def forward(self, images):
        return self.change(images[..., :16, :16].flatten(1) @ self.weight)


@pytest.mark.parametrize("batch_size", [1, 5, 256])
def test_row_i_belongs_to_image_i(batch_size):
    net = Net().train()
    rows = embed(net, FACES, batch_size=batch_size)
    images = FACES.batch(range(len(FACES)))
    assert torch.allclose(rows, net(images), atol=1e-5)
    mirrored = embed(net, FACES, mirrored=True, batch_size=batch_size)
    assert torch.allclose(mirrored, net(images.flip(-1)), atol=1e-5)
    assert net.training
    assert not rows.requires_grad


class Counting:
    """A set that counts how often each image is read, and where."""

    def __init__(self, faces, reads_ahead=False):
        self.faces, self.labels, self.image_size = faces, faces.labels, faces.image_size
        self.num_identities = faces.num_identities
        self.reads = torch.zeros(len(faces))
        self.is_here: list[bool] = []
        self.ahead = reads_ahead

    @property
    def reads_ahead(self):
        return self.ahead

    def __len__(self):
        return len(self.faces)

    def batch(self, indices):
        self.reads[torch.as_tensor(indices)] += 1
        self.is_here.append(threading.current_thread() is threading.main_thread())
        return self.faces.batch(indices)


@pytest.mark.parametrize("ahead", [False, True])
def test_both_views_are_made_of_one_reading(ahead):
    faces, net = Counting(FACES, ahead), Net()
    plain, mirrored = embed_views(net, faces, batch_size=5)
    assert torch.equal(plain, embed(net, FACES, batch_size=5))
    assert torch.equal(mirrored, embed(net, FACES, mirrored=True, batch_size=5))
    assert (faces.reads == 1).all()
    assert set(faces.is_here) == {not ahead}
    assert not plain.is_inference() and not mirrored.is_inference()


def test_files_are_read_beside_the_net(tmp_path):
    """The next batch is being read while the net has the one before."""
    for person in range(2):
        (tmp_path / str(person)).mkdir()
        for number in range(4):
            image = Image.new("RGB", (16, 16), (40 * person, 30 * number, 90))
            image.save(tmp_path / str(person) / f"{number}.png")
    faces = ImageFolder(tmp_path, image_size=16)
    begun, seen = [threading.Event() for _ in range(4)], []
    plain_batch = faces.batch

    class Watched(ImageFolder):
        reads_ahead = True

        def __init__(self):
            self.__dict__.update(faces.__dict__)

        def batch(self, indices):
            begun[int(indices[0]) // 2].set()
            return plain_batch(indices)

    def wait(rows):
        seen.append(len(seen) == 3 or begun[len(seen) + 1].wait(30))
        return rows

    rows = embed(Net(wait), Watched(), batch_size=2)
    assert seen == [True] * 4
    assert torch.equal(rows, embed(Net(), faces, batch_size=2))


def test_a_fault_of_the_reading_thread_is_the_callers():
    class Broken(Counting):
        reads_ahead = True

        def batch(self, indices):
            if 7 in indices:
                raise OSError("image 7 is gone")
            return self.faces.batch(indices)

    with pytest.raises(OSError, match="image 7 is gone"):
        embed(Net(), Broken(FACES), batch_size=4)
    assert not [thread for thread in threading.enumerate() if "reads-ahead" in thread.name]


@pytest.fixture
def sets(tmp_path):
    """Faces of every kind by name: those that hold bytes first."""
    for person in range(3):
        (tmp_path / "faces" / str(person)).mkdir(parents=True)
        for number in range(3):
            pixels = torch.randint(
                256, (16, 16, 3), generator=torch.Generator().manual_seed(number)
            )
            image = Image.fromarray(pixels.to(torch.uint8).numpy())
            image.save(tmp_path / "faces" / str(person) / f"{number}.{'jpg' if number else 'png'}")
    folder = ImageFolder(tmp_path / "faces", image_size=16)
    convert(folder, tmp_path / "rec", to="rec")
    convert(folder, tmp_path / "packed")
    encoded = [Path(folder.source(i)).read_bytes() for i in range(4)]

    class Darker(ImageFolder):
        def batch(self, indices):
            return super().batch(indices) * 0.5

    holding = {
        "folder": folder,
        "record": open_faces(tmp_path / "rec", image_size=16),
        "packed": open_faces(tmp_path / "packed", image_size=16),
        "encoded": EncodedFaces(encoded, torch.zeros(4).long(), list("abcd"), image_size=16),
    }
    with tarfile.open(tmp_path / "0.tar", "w") as file:
        for number, data in enumerate(encoded):
            for end, content in (("jpg" if number else "png", data), ("cls", b"0")):
                member = tarfile.TarInfo(f"{number}.{end}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    holding["shards"] = Shards(tmp_path / "0.tar", image_size=16)
    others = {
        "synthetic": SyntheticFaces(3, 2, image_size=32),
        "subset": Subset(folder, [4, 0, 4]),
        "selection": Selection(folder, torch.tensor([2, 0])),
        "colours": FACES,
        "of your own": Darker(folder.root, image_size=16),
    }
    return holding, others


@pytest.mark.parametrize("options", [{}, {"mirrored": True, "channels_last": True}])
@pytest.mark.filterwarnings("ignore:.*eyes are not where aligned")
def test_bytes_on_the_way_to_a_device_give_the_same_embeddings(sets, options, monkeypatch):
    """To the last bit, of every kind of set; what holds bytes sends them, but not to a CPU."""
    sent: list[torch.dtype] = []

    def watched(images):
        sent.append(images.dtype)
        return as_floats(images)

    monkeypatch.setattr("ekd_lite.evaluate.embedding.as_floats", watched)
    holding, others = sets
    for name, faces in {**holding, **others}.items():
        for net in (Net(), Net().double()):
            sent.clear()
            plain = embed(net, faces, batch_size=2, **options)
            assert set(sent) == {torch.float32}, name
            images = faces.batch(range(len(faces))).to(net.weight.dtype)
            images = images.flip(-1) if options else images
            parts = [net(images[i : i + 2]).float() for i in range(0, len(faces), 2)]
            assert torch.equal(plain, torch.cat(parts)), name
            sent.clear()
            with as_on_a_gpu():
                assert torch.equal(embed(net, faces, batch_size=2, **options), plain), name
            assert set(sent) == {torch.uint8 if name in holding else torch.float32}, name


class Storages(TorchDispatchMode):
    """Where results of operations lie, and how large that is."""

    def __init__(self):
        super().__init__()
        self.sizes = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            storage = result.untyped_storage()
            self.sizes[storage.data_ptr()] = storage.nbytes()
        return result


def test_the_result_is_one_array():
    """A row is written to where it belongs; at no time are there two of any size."""
    count, width = 1024, 512
    faces = PackedFaces(torch.zeros(count, 3, 16, 16, dtype=torch.uint8), torch.zeros(count).long())
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, width))
    with Storages() as seen:
        rows = embed(net, faces, batch_size=16)
    assert seen.sizes.pop(rows.data_ptr()) == rows.nbytes == 4 * count * width
    for given in (faces._rows, net[1].weight):
        seen.sizes.pop(given.untyped_storage().data_ptr(), None)
    assert max(seen.sizes.values()) < 0.1 * rows.nbytes


@pytest.mark.parametrize("channels_last", [False, True])
def test_half_precision_and_format_reach_the_net(channels_last):
    seen = []
    net = nn.Sequential(nn.Conv2d(3, 8, 16), nn.Flatten())
    net.register_forward_pre_hook(
        lambda _, given: seen.append(
            (
                torch.is_autocast_enabled("cpu"),
                given[0].is_contiguous(memory_format=torch.channels_last),
            )
        )
    )
    rows = embed(net, FACES, autocast=torch.bfloat16, channels_last=channels_last)
    assert set(seen) == {(True, channels_last)}
    assert rows.dtype == torch.float32
    plain = embed(net, FACES)
    assert seen[-1] == (False, False)
    assert not torch.equal(rows, plain)
    torch.testing.assert_close(rows, plain, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Net(lambda x: (x, x.norm(dim=1, keepdim=True))), "gives a tuple of 2"),
        (Net(lambda x: {"embedding": x}), "gives a dict of 1"),
        (Net(lambda x: x.view(-1, 2, 2, 2)), "expected embeddings"),
        (Net(lambda x: x.sum(1)), "expected embeddings"),
        (Net(lambda x: x[:1]), "expected embeddings"),
        (Net(lambda x: x.long()), "in floating point"),
        (Net().half(), "torch.float16: expected float32"),
        (Net().bfloat16(), "torch.bfloat16: expected float32"),
        (Net(lambda x: x / 0), "not finite"),
    ],
)
def test_a_net_of_another_output_is_named(net, message):
    net.train()
    with pytest.raises(ValueError, match=message):
        embed(net, FACES)
    assert net.training


def test_an_empty_set_is_named():
    class Nobody:
        def __len__(self):
            return 0

    with pytest.raises(ValueError, match="the set holds no image"):
        embed(Net(), Nobody())  # type: ignore[arg-type]


def test_the_module_that_was_called_embed():
    from ekd_lite import evaluate

    again = importlib.import_module("ekd_lite.evaluate.embed").embed  # no file of that name
    assert again is embed is evaluate.embed


def test_a_net_in_double_precision_gets_images_of_its_own_kind():
    assert torch.allclose(embed(Net().double(), FACES), embed(Net(), FACES), atol=1e-4)


@pytest.mark.parametrize("net", [None, "net.pth", lambda images: images.flatten(1)])
def test_what_is_no_net(net):
    with pytest.raises(ValueError, match="embed needs a net"):
        embed(net, FACES)


def test_half_precision_in_buffers_alone():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3 * 16 * 16, affine=False).half())
    with pytest.raises(ValueError, match=r"torch\.float16: expected float32"):
        embed(net, FACES)


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_batches_of_no_size(size):
    with pytest.raises(ValueError, match="batch_size must be a whole number >= 1"):
        embed(Net(), FACES, batch_size=size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: ((x + 1) * 127.5).to(torch.uint8), r"got \(72, 3, 16, 16\) of torch.uint8"),
        (lambda x: (x + 1) * 127.5, "pixels of 0..255 are scaled by"),
        (lambda x: x.double(), "got .* of torch.float64"),
        (lambda x: x.numpy(), "got a numpy array"),
        (lambda x: (x, x), "got tuple"),
        (lambda x: x[:1], r"got \(1, 3, 16, 16\)"),
        (lambda x: x.permute(0, 2, 3, 1), r"got \(72, 16, 16, 3\)"),
        (lambda x: x * torch.nan, "image 0 of the set holds NaN"),
        (lambda x: x[:, :, :12, :12], r"images are 16 pixels wide, and gives \(3, 12, 12\)"),
    ],
)
def test_images_that_are_none(monkeypatch, change, message):
    faces = ColourFaces()
    batch = faces.batch
    monkeypatch.setattr(faces, "batch", lambda indices: change(batch(indices)))
    for way in (contextlib.nullcontext(), as_on_a_gpu()):  # there bytes are sent, but not these
        with way, pytest.raises(ValueError, match=message):
            embed(Net(), faces)


def test_pixels_from_0_to_1_are_warned_of(monkeypatch):
    faces = ColourFaces()
    batch = faces.batch
    monkeypatch.setattr(faces, "batch", lambda indices: (batch(indices) + 1) / 2)
    with pytest.warns(UserWarning, match="no pixel of 72 images is below 0.* give out 2 . images"):
        embed(Net(), faces)
    with pytest.warns(UserWarning, match="no pixel of 8 images") as warned:
        embed_views(Net(), faces, batch_size=8)
    assert len(warned) == 1  # of the first batch alone
    assert embed(Net(), faces, batch_size=7).shape == (72, 8)  # too few to say so
