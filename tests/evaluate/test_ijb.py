"""IJB pooling and pair lists, from files in the exact format, against the slow protocol."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve
from sklearn.preprocessing import normalize

from ekd_lite.evaluate import ijb, ijb_tpr_at_fpr, scores
from ekd_lite.evaluate.ijb import find_templates, pool_templates, template_scores
from ekd_lite.evaluate.ijb_files import (
    TemplateMedia,
    TemplatePairs,
    read_face_landmarks,
    read_template_media,
    read_template_pairs,
    read_template_subjects,
)
from ekd_lite.evaluate.megaface import read_noise_list
from ekd_lite.ops import unit_rows

SWITCHES = [(n, d, f) for n in (True, False) for d in (True, False) for f in (True, False)]


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    """300 images of 20 people in 60 templates, and the three lists of IJB."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("meta")
    person = rng.permutation(np.arange(60) % 20)  # of each template
    template = np.concatenate([np.arange(60), rng.integers(0, 60, 240)])
    template_ids = rng.permutation(9000)[:60][template] + 1  # sparse ids, in no order
    media = rng.integers(1, 8, 300)  # one number in several templates, several images each
    base = rng.normal(size=(20, 16))[person[template]]
    images = [(base + 2 * rng.normal(size=base.shape)).astype(np.float32) for _ in range(2)]
    images = [x * rng.uniform(0.5, 2, (300, 1)).astype(np.float32) for x in images]
    scores = rng.uniform(0.3, 1, 300).round(6)
    points = rng.uniform(0, 200, (300, 10)).round(3)
    pairs = [(a, b) for a in range(60) for b in range(a + 1, 60)]
    ids = dict(zip(template, template_ids, strict=True))
    rows = [f"{ids[a]} {ids[b]} {int(person[a] == person[b])}" for a, b in pairs]
    (folder / "media.txt").write_text(
        "".join(
            f"{k}.jpg {t} {m}\n" for k, (t, m) in enumerate(zip(template_ids, media, strict=True))
        )
    )
    (folder / "pairs.txt").write_text("\n".join(rows) + "\n")
    (folder / "points.txt").write_text(
        "".join(
            f"{k}.jpg {' '.join(map(str, p))} {s}\n"
            for k, (p, s) in enumerate(zip(points, scores, strict=True))
        )
    )
    return folder, images, points


def slow_ijb(folder, plain, flipped, n, d, f):
    """Straight from the protocol, in float64, reading the files with split()."""
    media = [line.split() for line in (folder / "media.txt").read_text().splitlines()]
    scores = [float(line.split()[-1]) for line in (folder / "points.txt").read_text().splitlines()]
    vectors = plain.astype(np.float64) + (flipped if f else 0)
    if not n:
        vectors = vectors / np.sqrt((vectors**2).sum(-1, keepdims=True))
    if d:
        vectors = vectors * np.array(scores)[:, None]
    templates = {}
    for tid in {int(row[1]) for row in media}:
        groups = {}
        for k, row in enumerate(media):
            if int(row[1]) == tid:
                groups.setdefault(int(row[2]), []).append(vectors[k])
        total = sum(np.mean(group, axis=0) for group in groups.values())
        templates[tid] = normalize(total[None])[0]
    rows = [
        list(map(int, line.split())) for line in (folder / "pairs.txt").read_text().splitlines()
    ]
    score = np.array([templates[a] @ templates[b] for a, b, _ in rows])
    return templates, score, np.array([label for *_, label in rows], dtype=bool)


@pytest.mark.parametrize(("n", "d", "f"), SWITCHES)
def test_every_switch_equals_the_slow_protocol_and_scikit_learn(small_set, n, d, f):
    folder, (plain, flipped), _ = small_set
    templates, score, flags = slow_ijb(folder, plain, flipped, n, d, f)
    media, pairs = (
        read_template_media(folder / "media.txt"),
        read_template_pairs(folder / "pairs.txt"),
    )
    landmarks = read_face_landmarks(folder / "points.txt")
    options = {
        "mirrored": torch.from_numpy(flipped) if f else None,
        "detector_scores": landmarks.scores if d else None,
        "keep_norm": n,
    }
    args = (torch.from_numpy(plain), media.template_ids, media.media_ids)
    pooled, ids = pool_templates(*args, **options)
    expected = np.stack([templates[i] for i in ids.tolist()])
    np.testing.assert_allclose(pooled.numpy(), expected, atol=2e-6)
    rows = [find_templates(ids, wanted) for wanted in (pairs.first, pairs.second)]
    np.testing.assert_allclose(template_scores(pooled, *rows).numpy(), score, atol=2e-6)
    levels = [1e-1, 1e-2, 1e-3]
    fpr, tpr, _ = roc_curve(flags, score, drop_intermediate=False)
    conservative = [tpr[fpr <= level].max() for level in levels]
    got = ijb_tpr_at_fpr(args[0], media, pairs, levels, **options)
    np.testing.assert_allclose(got.numpy(), conservative, rtol=1e-12)
    fpr, tpr, _ = roc_curve(flags, score)
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    nearest = [tpr[min(zip(abs(fpr - x), range(len(fpr)), strict=True))[1]] for x in levels]
    got = ijb_tpr_at_fpr(args[0], media, pairs, levels, **options, convention="nearest")
    np.testing.assert_allclose(got.numpy(), nearest, rtol=1e-12)


def test_the_switches_change_the_numbers(small_set):
    """Else the test above would prove nothing about them."""
    folder, images, _ = small_set
    tables = [slow_ijb(folder, *(*images, *switch))[1] for switch in SWITCHES]
    for a in range(8):
        for b in range(a):
            assert abs(tables[a] - tables[b]).max() > 1e-3


def test_files_are_read_as_written(small_set):
    folder, _, points = small_set
    landmarks = read_face_landmarks(folder / "points.txt")
    assert landmarks.files[7] == "7.jpg"
    np.testing.assert_allclose(landmarks.landmarks[7].flatten().numpy(), points[7], rtol=1e-6)
    assert read_template_media(folder / "media.txt").files == landmarks.files
    pairs = read_template_pairs(folder / "pairs.txt")
    assert (len(pairs.first), int(pairs.is_genuine.sum())) == (60 * 59 // 2, 20 * 3)


@pytest.mark.parametrize("chunk", [1, 7, 4096])
@pytest.mark.parametrize("kind", ["float32", "float16", "float64", "view", "gradient"])
def test_templates_cut_anywhere_and_numbers_of_any_kind(monkeypatch, chunk, kind):
    """A template of all sizes from 1 to 9 images, in parts of any size; N0D1F1 has every step."""
    monkeypatch.setattr(ijb, "CHUNK", chunk)
    rng = np.random.default_rng(4)
    template = rng.permutation(np.repeat(rng.permutation(2**62 - np.arange(9)), range(1, 10)))
    media = rng.integers(-3, 3, 45)
    rows, flipped = (torch.from_numpy(rng.normal(size=(45, 6))) for _ in range(2))
    score = torch.from_numpy(rng.uniform(0.3, 1, 45))
    if kind == "view":
        rows, flipped = (x.float().repeat(1, 2)[:, :6] for x in (rows, flipped))
    else:
        kinds = {"float16": torch.float16, "float64": torch.float64}
        rows, flipped = (x.to(kinds.get(kind, torch.float32)) for x in (rows, flipped))
    rows.requires_grad_(kind == "gradient")
    pooled, ids = pool_templates(
        rows, torch.from_numpy(template), torch.from_numpy(media),
        mirrored=flipped, detector_scores=score, keep_norm=False,
    )  # fmt: skip
    assert (pooled.dtype, pooled.requires_grad) == (torch.float32, False)
    assert ids.tolist() == sorted(set(template.tolist()))
    vectors = normalize(rows.detach().double().numpy() + flipped.double().numpy())
    vectors *= score.numpy()[:, None]
    for vector, name in zip(pooled.numpy(), ids.tolist(), strict=True):
        means = [
            vectors[(template == name) & (media == medium)].mean(axis=0)
            for medium in np.unique(media[template == name])
        ]
        np.testing.assert_allclose(vector, normalize(sum(means)[None])[0], atol=1e-6)


@pytest.mark.parametrize("keep_norm", [True, False])
def test_an_image_without_direction_or_beyond_numbers(keep_norm):
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [1e30, 0.0]])
    template, media = torch.tensor([1, 1, 2, 3]), torch.tensor([1, 2, 1, 1])
    pooled, _ = pool_templates(rows, template, media, keep_norm=keep_norm)
    # The square of 1e30 is beyond float32, its direction is not.
    torch.testing.assert_close(pooled, torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]]))
    for bad in (float("nan"), float("inf"), float("-inf")):
        rows[2, 1] = bad
        with pytest.raises(ValueError, match="an image of template 2 has NaN or infinity"):
            pool_templates(rows, template, media, keep_norm=keep_norm)


@pytest.mark.parametrize("worth", [0.0, 2.0])  # always and never a matrix product
@pytest.mark.parametrize("is_sorted", [True, False])
def test_pair_scores_in_blocks(monkeypatch, worth, is_sorted):
    monkeypatch.setattr(ijb, "BLOCK", 7)
    monkeypatch.setattr(scores, "WORTH_A_PRODUCT", worth)
    generator = torch.Generator().manual_seed(0)
    unit = unit_rows(torch.randn(50, 9, generator=generator))
    first, second = torch.randint(50, (2, 400), generator=generator)
    first = first.clamp(min=15)  # blocks without a pair
    if is_sorted:
        first = first.sort().values
    expected = (unit[first].double() * unit[second]).sum(1)
    torch.testing.assert_close(template_scores(unit, first, second), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (read_template_media, "a.jpg 1 2\nb.jpg 1\n", "line 2: expected 3 fields"),
        (read_template_media, "a.jpg 1 x\n", "line 1: expected whole numbers"),
        (read_template_media, "", "is empty"),
        (read_template_pairs, "1 2 0\n1 2\n", "line 2: expected 3 fields"),
        (read_template_pairs, "1 2 0\n1 2.5 0\n", "line 2: expected whole numbers"),
        (read_template_pairs, "1 2 0\n1 3 1\n1 4 7\n", "line 3: expected 0 or 1"),
        (read_template_pairs, "1 2 0 4\n1 3 1 4\n", "line 1: expected 3 fields"),
        (read_face_landmarks, "a.jpg 1 2 3\n", "line 1: expected 12 fields"),
        (read_face_landmarks, "a.jpg" + " 1" * 10 + " nan\n", "a.jpg are not finite"),
        (
            read_template_subjects,
            "TEMPLATE_ID,SUBJECT_ID\n1,5\n1,6\n",
            "line 3: template 1 has two",
        ),
        (read_template_subjects, "TEMPLATE_ID,SUBJECT_ID\n1\n", "line 2: expected whole"),
        (read_template_subjects, "TEMPLATE_ID,SUBJECT_ID\n", "is empty"),
    ],
)
def test_a_bad_line_is_named(tmp_path, reader, text, message):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        reader(path)


def test_subjects_of_templates(tmp_path):
    path = tmp_path / "ijbc_1N_gallery_G1.csv"
    path.write_text(
        "TEMPLATE_ID,SUBJECT_ID,FILENAME\n9,4,img/1.jpg\n9,4,img/2.jpg\n3,1,img/3.jpg\n"
    )
    templates, subjects = read_template_subjects(path)
    assert (templates.tolist(), subjects.tolist()) == ([3, 9], [1, 4])


def test_bad_input_is_named():
    rows, one = torch.randn(4, 3), torch.tensor([1, 1, 2, 2])
    with pytest.raises(ValueError, match=r"media_ids \(4,\)"):
        pool_templates(rows, one, one[:3])
    with pytest.raises(ValueError, match=r"mirrored \(4, 3\)"):
        pool_templates(rows, one, one, mirrored=rows[:, :2])
    with pytest.raises(ValueError, match="template 5 is compared but no image"):
        find_templates(torch.tensor([1, 2]), torch.tensor([1, 5]))
    rows[2, 0] = float("nan")
    with pytest.raises(ValueError, match="template 2 has NaN"):
        pool_templates(rows, one, one)


def test_no_image_at_all_is_told():
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="no image to pool"):
        pool_templates(torch.zeros(0, 4), none, none)


def test_lists_of_other_lengths_are_not_stretched():
    """One second template beside two first ones was compared with both."""
    media = TemplateMedia([], torch.tensor([1, 1, 2, 2]), torch.arange(4))
    pairs = TemplatePairs(torch.tensor([1, 2]), torch.tensor([1]), torch.tensor([True, False]))
    with pytest.raises(ValueError, match="pairs of templates, got 2 first, 1 second"):
        ijb_tpr_at_fpr(torch.randn(4, 3), media, pairs)
    for bad in ((None, pairs), (media, media), (pairs, media), ((1, 2), pairs)):
        with pytest.raises(ValueError, match="expected media from read_template_media"):
            ijb_tpr_at_fpr(torch.randn(4, 3), *bad)


def test_lists_with_a_mark_and_blank_lines_name_the_same(tmp_path):
    path = tmp_path / "list.txt"
    landmarks = " 1" * 10 + " 0.5\r\n"
    path.write_bytes(b"\xef\xbb\xbfa.jpg 1 2\r\n\r\nb.jpg 1 3\r\n\r\n")
    assert read_template_media(path).files == ["a.jpg", "b.jpg"]
    path.write_bytes(b"\xef\xbb\xbf1 2 1\r\n\r\n")
    assert read_template_pairs(path).first.tolist() == [1]
    path.write_bytes(b"\xef\xbb\xbfa.jpg" + landmarks.encode())
    assert read_face_landmarks(path).files == ["a.jpg"]
    path.write_bytes(b"\xef\xbb\xbfa.jpg\n")
    assert read_noise_list(path) == {"a.jpg"}
    for reader in (read_template_media, read_template_pairs, read_template_subjects):
        path.write_bytes(b"TEMPLATE_ID,\xff\xc3(\n")
        with pytest.raises(ValueError, match="is no text in UTF-8"):
            reader(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [("1,2", "expected a header in line 1"), ("SUBJECT_ID,TEMPLATE_ID", "template id, subject id")],
)
def test_subjects_are_not_taken_for_templates(tmp_path, header, message):
    path = tmp_path / "gallery.csv"
    path.write_text(f"{header}\n3,4\n")
    with pytest.raises(ValueError, match=message):
        read_template_subjects(path)
