"""The procedural face set: the same picture always, whoever asks, in whatever order."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ekd_lite.data.preview import preview, preview_sweep
from ekd_lite.data.renderer.draw import identity_latents, identity_table, nuisance_table
from ekd_lite.data.renderer.parameters import (
    IDENTITY_PARAMETERS,
    NUISANCE_PARAMETERS,
    Columns,
    identity_names,
    nuisance_names,
)
from ekd_lite.data.renderer.random import hash_uniforms, normals_from_uniforms
from ekd_lite.data.renderer.render import render_faces
from ekd_lite.data.synthetic import SyntheticFaces


@pytest.fixture(scope="module")
def faces():
    return SyntheticFaces(12, 5, seed=3, nuisance_strength=1.0)


@pytest.fixture(scope="module")
def pixels(faces):
    return faces.batch(range(len(faces)))


def _distance(a, b):
    return (a - b).abs().mean().item()


# -- the set ----------------------------------------------------------------------------------


def test_length_labels_and_shapes(faces, pixels):
    assert len(faces) == 60
    assert faces.labels.dtype == torch.int64
    assert faces.labels.tolist() == [i // 5 for i in range(60)]
    image, label = faces[7]
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.float32
    assert label == 1
    assert isinstance(label, int)
    assert torch.equal(image, pixels[7])
    assert torch.equal(faces[-1][0], pixels[59])
    assert faces.batch([]).shape == (0, 3, 32, 32)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 59), min_size=1, max_size=9))
def test_pixels_do_not_depend_on_batch_or_order(indices):
    faces = SyntheticFaces(12, 5, seed=3, nuisance_strength=1.0)
    together = faces.batch(torch.tensor(indices))
    for image, index in zip(together, indices, strict=True):
        assert torch.equal(image, faces[index][0])


def test_pixels_do_not_depend_on_split_or_threads(faces, pixels):
    for width in (7, 32):
        parts = [faces.batch(list(range(k, min(k + width, 60)))) for k in range(0, 60, width)]
        assert torch.equal(torch.cat(parts), pixels)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(faces.batch(range(60)), pixels)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.starts_process
def test_another_process_renders_the_same(faces, pixels):
    code = (
        "import hashlib; from ekd_lite.data.synthetic import SyntheticFaces as S;"
        "x = S(12, 5, seed=3, nuisance_strength=1.0).batch(range(60));"
        "print(hashlib.sha256(x.numpy().tobytes()).hexdigest())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == hashlib.sha256(pixels.numpy().tobytes()).hexdigest()


def test_longer_sets_begin_with_shorter_ones(pixels):
    more_people = SyntheticFaces(20, 5, seed=3, nuisance_strength=1.0)
    assert torch.equal(more_people.batch(range(60)), pixels)
    more_images = SyntheticFaces(12, 9, seed=3, nuisance_strength=1.0)
    indices = [9 * who + k for who in range(12) for k in range(5)]
    assert torch.equal(more_images.batch(indices), pixels)


def test_offsets_select_the_same_people_and_pictures(pixels):
    later = SyntheticFaces(4, 2, seed=3, nuisance_strength=1.0, first_identity=6, first_image=3)
    assert later.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    chosen = [5 * who + k for who in range(6, 10) for k in (3, 4)]
    assert torch.equal(later.batch(range(8)), pixels[chosen])


def test_everybody_and_every_picture_differs(pixels):
    flat = pixels.flatten(1)
    distance = torch.cdist(flat, flat, p=1) / flat.shape[1]
    assert distance[~torch.eye(60, dtype=torch.bool)].min() > 0.01


def test_another_seed_is_another_population(faces, pixels):
    other = SyntheticFaces(12, 5, seed=4, nuisance_strength=1.0).batch(range(60))
    assert (other - pixels).abs().flatten(1).mean(1).min() > 0.03


def test_no_mirror_symmetry_to_exploit():
    portraits = SyntheticFaces(20, 1, nuisance_strength=0.0, image_size=64).batch(range(20))
    assert _distance(portraits, portraits.flip(-1)) > 0.01


# -- difficulty -------------------------------------------------------------------------------


def test_strength_widens_identities_from_zero():
    within = []
    for strength in (0.0, 0.2, 0.5, 1.0):
        images = SyntheticFaces(25, 2, nuisance_strength=strength).batch(range(50))
        within.append(_distance(images[::2, :, 4:-8, 8:-8], images[1::2, :, 4:-8, 8:-8]))
    assert within == sorted(within)
    assert within[0] == 0.0  # a studio portrait is always the same
    assert within[1] > 0.03


def test_spread_separates_identities():
    between = []
    for spread in (0.0, 0.5, 1.0, 2.0):
        portraits = SyntheticFaces(
            60, 1, identity_spread=spread, nuisance_strength=0.0, family_share=0.0
        ).batch(range(60))
        between.append(
            _distance(portraits[:, :, 4:-8, 8:-8], portraits.roll(1, 0)[:, :, 4:-8, 8:-8])
        )
    assert between == sorted(between)
    assert between[0] < 0.02
    assert between[2] > 0.08


def test_siblings_are_look_alikes():
    def closeness(share, likeness):
        z = identity_latents(
            5, torch.arange(3000), family_share=share, family_likeness=likeness
        ).view(1000, 3, -1)
        return (z[:, 0] * z[:, 1]).mean(1)  # correlation of two siblings

    families = closeness(0.3, 0.6)
    assert 0.25 < (families > 0.3).double().mean() < 0.35
    assert families[families > 0.3].mean() == pytest.approx(0.6, abs=0.03)
    assert closeness(0.0, 0.6).abs().mean() < 0.15
    assert closeness(1.0, 1.0).min() > 0.5
    z = identity_latents(5, torch.arange(3000), family_share=0.3, family_likeness=0.6)
    assert z.mean().abs() < 0.01  # siblings or not, everyone is drawn from one population
    assert z.var().item() == pytest.approx(1.0, abs=0.01)


def test_hash_is_uniform_and_its_streams_are_unrelated():
    n = torch.arange(20_000)
    a = hash_uniforms(0, 1, n, columns=2)
    b = hash_uniforms(0, 2, n, columns=2)
    assert 0.0 < a.min() < 1e-3
    assert 1 - 1e-3 < a.max() < 1.0
    counts = a.flatten().histc(20, 0, 1)
    assert ((counts - 2000) ** 2 / 2000).sum() < 45  # chi-squared, 19 degrees: p = 7e-4
    for other in (b[:, 0], a[:, 1], a[:, 0].roll(1)):
        assert torch.corrcoef(torch.stack([a[:, 0], other]))[0, 1].abs() < 0.03
    # splitmix64's published first output for the state 0
    from ekd_lite.data.renderer.random import _splitmix64

    assert int(_splitmix64(torch.tensor(0))) % (1 << 64) == 0xE220A8397B1DCDAF
    assert normals_from_uniforms(torch.tensor([0.5, 0.975])).tolist() == pytest.approx(
        [0.0, 1.959964], abs=1e-5
    )


def test_all_shades_are_equally_frequent():
    z = identity_latents(0, torch.arange(4000), family_share=0.3, family_likeness=0.6)
    table = identity_table(z, spread=1.5)
    for name in ("skin_tone", "hair_tone"):
        shares = table[:, identity_names().index(name)].histc(5, 0, 1) / 4000
        assert shares.min() > 0.17
        assert shares.max() < 0.23


# -- pixels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 48, 64, 80, 96, 112])
def test_sizes(size):
    images = SyntheticFaces(3, 1, image_size=size).batch(range(3))
    assert images.shape == (3, 3, size, size)
    levels = (images + 1.0) * 127.5
    assert torch.equal(images, levels.round() / 127.5 - 1.0)


def test_sizes_show_the_same_scene():
    small = SyntheticFaces(6, 1, image_size=32, nuisance_strength=0.0).batch(range(6))
    large = SyntheticFaces(6, 1, image_size=96, nuisance_strength=0.0).batch(range(6))
    assert _distance(torch.nn.functional.avg_pool2d(large, 3), small) < 0.05


def test_values_are_bytes_even_for_extreme_parameters():
    identity = torch.tensor([[row.low for row in IDENTITY_PARAMETERS],
                             [row.high for row in IDENTITY_PARAMETERS]])  # fmt: skip
    images = []
    for z in (-8.0, 8.0):
        latents = torch.full((2, len(identity[0])), z, dtype=torch.float64)
        table = identity_table(latents * torch.tensor([[1.0], [-1.0]]), spread=4.0)
        for strength in (0.0, 10.0):
            nuisance = nuisance_table(
                1, torch.tensor([0, 1]), torch.tensor([5, 6]), strength=strength
            )
            images.append(render_faces(table, nuisance, size=32, device=torch.device("cpu")))
    wild = SyntheticFaces(20, 2, identity_spread=10.0, nuisance_strength=10.0).batch(range(40))
    every = torch.cat([*images, wild])
    assert every.isfinite().all()
    levels = (every + 1.0) * 127.5
    assert (levels - levels.round()).abs().max() < 1e-4
    assert levels.round().min() >= 0
    assert levels.round().max() <= 255
    assert torch.equal(every, levels.round() / 127.5 - 1.0)


def test_tables_name_every_column_and_keep_their_limits():
    names = nuisance_names()
    assert len(set(names)) == len(names)
    assert len(set(identity_names())) == len(identity_names()) >= 70
    for row in (*IDENTITY_PARAMETERS, *NUISANCE_PARAMETERS):
        assert row.low <= row.mean <= row.high or row.low == 0.0
        assert row.std > 0
    table = nuisance_table(0, torch.arange(500), torch.arange(500), strength=1.0)
    assert table.shape == (500, len(names))
    yaw = Columns(names, table).yaw.flatten()
    assert torch.equal(yaw.double().sin().float(), Columns(names, table).sin_yaw.flatten()) or (
        (yaw.sin() - Columns(names, table).sin_yaw.flatten()).abs().max() < 1e-6
    )
    with pytest.raises(AttributeError, match="no face parameter named 'tail'"):
        _ = Columns(names, table).tail


@pytest.mark.parametrize(
    "name", ["yaw", "smile", "mouth_open", "age", "light_x", "glasses", "mask", "object", "hat"]
)
def test_nuisance_shows(name):
    names = nuisance_names()
    z = identity_latents(0, torch.arange(8), family_share=0.0, family_likeness=0.0)
    plain = nuisance_table(0, torch.arange(8), torch.arange(8), strength=0.0)
    changed = plain.clone()
    changed[:, names.index(name)] = 0.2 if name == "mouth_open" else 1.0
    if name == "yaw":
        changed[:, names.index("sin_yaw")] = 0.6
        changed[:, names.index("cos_yaw")] = 0.8
    who = identity_table(z, spread=1.0)
    cpu = torch.device("cpu")
    before = render_faces(who, plain, size=48, device=cpu)
    after = render_faces(who, changed, size=48, device=cpu)
    assert (before - after).abs().flatten(1).mean(1).min() > 0.001


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_agrees_within_a_level(faces, pixels):
    images = faces.render(range(60), device="cuda")
    assert images.device.type == "cuda"
    difference = (images.cpu() - pixels).abs() * 127.5
    assert (difference > 1.5).double().mean() < 1e-3  # an edge may fall to the other side


# -- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_identities": 0}, "num_identities must be a whole number of at least 1, got 0"),
        ({"num_identities": 2.5}, "num_identities must be a whole number"),
        ({"num_identities": True}, "num_identities must be a whole number"),
        ({"images_per_identity": 0}, "images_per_identity must be a whole number of at least 1"),
        ({"image_size": 40}, "image_size must be a multiple of 16 from 32 to 224, got 40"),
        ({"image_size": 16}, "image_size must be a whole number of at least 32"),
        ({"image_size": 240}, "image_size must be a multiple of 16 from 32 to 224, got 240"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"first_identity": -3}, "first_identity must be a whole number of at least 0"),
        ({"first_image": "2"}, "first_image must be a whole number of at least 0"),
        ({"nuisance_strength": -0.1}, "nuisance_strength must be a number from 0 to 10, got -0.1"),
        ({"nuisance_strength": float("nan")}, "nuisance_strength must be a number"),
        ({"identity_spread": -1.0}, "identity_spread must be a number from 0 to 10"),
        ({"family_share": 1.5}, "family_share must be a number from 0 to 1, got 1.5"),
        ({"family_likeness": None}, "family_likeness must be a number from 0 to 1"),
    ],
)
def test_bad_arguments(arguments, message):
    good = {"num_identities": 2, "images_per_identity": 2}
    with pytest.raises(ValueError, match=message):
        SyntheticFaces(**(good | arguments))


@pytest.mark.parametrize("index", [60, -61, 1.0, "3", None])
def test_bad_index(faces, index):
    with pytest.raises(IndexError, match="index"):
        faces[index]


@pytest.mark.parametrize(
    "indices", [[60], [0, -1], [0.5], torch.tensor([True]), torch.tensor([[1, 2]])]
)
def test_bad_indices(faces, indices):
    with pytest.raises(IndexError, match=r"ind(ex|ices)"):
        faces.batch(indices)


# -- contact sheet ----------------------------------------------------------------------------


def test_preview(tmp_path):
    path = preview(
        tmp_path / "sheet.png", num_identities=2, images_per_identity=3, image_size=48, seed=7
    )
    sheet = torch.tensor(list(Image.open(path).convert("RGB").tobytes())).view(98, 148, 3)
    first = SyntheticFaces(2, 1, image_size=48, seed=7, nuisance_strength=0.0)[0][0]
    second = SyntheticFaces(2, 2, image_size=48, seed=7)[3][0]
    assert torch.equal(sheet[:48, :48].permute(2, 0, 1) / 127.5 - 1.0, first)
    assert torch.equal(sheet[50:, 100:].permute(2, 0, 1) / 127.5 - 1.0, second)
    with pytest.raises(ValueError, match="images_per_identity"):
        preview(tmp_path / "none.png", images_per_identity=0)
    assert not (tmp_path / "none.png").exists()


def test_preview_sweep(tmp_path):
    path = preview_sweep(tmp_path / "sweep.png", identity=5, columns=3, image_size=32, seed=7)
    sheet = torch.tensor(list(Image.open(path).convert("RGB").tobytes())).view(202, 100, 3)
    portrait = SyntheticFaces(1, 1, seed=7, first_identity=5, nuisance_strength=0.0)[0][0]
    middle = sheet[:32, 34:66].permute(2, 0, 1) / 127.5 - 1.0  # yaw 0
    assert torch.equal(middle, portrait)
    for row in range(6):  # each row changes from left to right
        pixels = sheet[34 * row : 34 * row + 32].float()
        assert _distance(pixels[:, :32], pixels[:, 68:]) > 0.2
    with pytest.raises(ValueError, match="columns must be a whole number of at least 2"):
        preview_sweep(tmp_path / "none.png", columns=1)


def test_tables_describe_the_pictures(faces, pixels):
    who, how = faces.tables(torch.tensor([0, 1, 5]))
    assert torch.equal(who[0], who[1])
    assert not torch.equal(who[0], who[2])
    assert not torch.equal(how[0], how[1])
    again = render_faces(who, how, size=32, device=torch.device("cpu"))
    assert torch.equal(again, pixels[[0, 1, 5]])
