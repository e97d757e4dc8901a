"""`ekd-lite evaluate` on a verification file and on a list of pairs."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from ekd_lite.__main__ import main
from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import SyntheticFaces, read_verification_bin
from ekd_lite.evaluate import embed, verification_accuracy
from ekd_lite.train import load_model

PEOPLE, PAIRS = 12, 120


def pictures():
    faces = SyntheticFaces(PEOPLE, 4, image_size=32, first_identity=9000)
    images = ((faces.batch(range(len(faces))) + 1) * 127.5).round().byte()
    return images.permute(0, 2, 3, 1).numpy()


def pairs():
    """(left, right) rows of `pictures`, genuine and impostor in turn."""
    rng = np.random.default_rng(0)
    for k in range(PAIRS):
        person = int(rng.integers(PEOPLE))
        one, other = rng.choice(4, 2, replace=False)
        stranger = (person + 1 + int(rng.integers(PEOPLE - 1))) % PEOPLE
        yield 4 * person + int(one), 4 * (person if k % 2 == 0 else stranger) + int(other)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """lfw.bin, and the same pairs as a folder with a list."""
    out = tmp_path_factory.mktemp("pairs")
    encoded, lines = [], ["left,right,is_genuine"]
    for row, picture in enumerate(pictures()):
        path = out / "faces" / f"person{row // 4}" / f"{row % 4}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        encoded.append(path.read_bytes())
    for left, right in pairs():
        names = [f"person{row // 4}/{row % 4}.png" for row in (left, right)]
        lines.append(",".join([*names, str(int(left // 4 == right // 4))]))
    flags = [left // 4 == right // 4 for left, right in pairs()]
    listed = [encoded[row] for pair in pairs() for row in pair]
    (out / "lfw.bin").write_bytes(pickle.dumps((listed, flags)))
    (out / "pairs.csv").write_text("\n".join(lines))
    return out


def test_a_verification_file_is_one_in_capitals_too(folder, tmp_path, capsys):
    (tmp_path / "LFW.BIN").write_bytes((folder / "lfw.bin").read_bytes())
    arguments = ["evaluate", "--model", str(DEMO_TEACHER), "--faces", str(tmp_path / "LFW.BIN")]
    assert main([*arguments, "--resamples", "0", "--fprs", "0.2"]) == 0
    text = capsys.readouterr().out
    assert f"LFW: {PAIRS} pairs" in text
    assert "not the public set LFW, which has 6,000 pairs" in text


@pytest.mark.parametrize("option", ["--model", "--source"])
def test_a_verification_file_gives_accuracy_and_tpr(folder, capsys, option):
    arguments = ["evaluate", option, str(DEMO_TEACHER), "--faces", str(folder / "lfw.bin")]
    assert main([*arguments, "--resamples", "50", "--fprs", "0.2", "0.1", "1e-3"]) == 0
    text = capsys.readouterr().out
    pairs = read_verification_bin(folder / "lfw.bin", image_size=32)
    net = load_model(DEMO_TEACHER).backbone
    sides = [
        [embed(net, side, mirrored=flag) for flag in (False, True)]
        for side in (pairs.left, pairs.right)
    ]
    expected = verification_accuracy(
        sides[0][0],
        sides[1][0],
        pairs.is_genuine,
        mirrored=(sides[0][1], sides[1][1]),
        fprs=[0.2, 0.1],
    )
    assert f"lfw: {PAIRS} pairs, {PAIRS // 2} of them genuine" in text
    assert "this is not the public set lfw, which has 6,000 pairs" in text
    assert f"accuracy {100 * expected.accuracy:.2f} % ± " in text
    assert "over 10 folds" in text
    assert f"FPR 0.2: TPR {100 * expected.tpr[0]:6.2f} % [" in text
    assert f"FPR 0.1: TPR {100 * expected.tpr[1]:6.2f} %, no interval: it needs 10 false" in text
    assert text.index("FPR 0.001: not measurable with 60 impostor pairs") < text.index("accuracy")
    assert "they are too narrow" in text


def test_a_list_over_a_folder_is_the_same_with_intervals_over_people(folder, capsys):
    common = ["evaluate", "--model", str(DEMO_TEACHER), "--fprs", "0.2", "--resamples", "50"]
    assert main([*common, "--faces", str(folder / "lfw.bin")]) == 0
    of_file = capsys.readouterr().out.splitlines()
    listed = ["--faces", str(folder / "faces"), "--pairs", str(folder / "pairs.csv")]
    assert main([*common, *listed]) == 0
    of_list = capsys.readouterr().out.splitlines()
    assert of_list[0] == f"pairs: {PAIRS} pairs, {PAIRS // 2} of them genuine"
    assert of_list[1] == of_file[2]  # the accuracy
    assert of_list[2].split("[")[0] == of_file[3].split("[")[0]
    assert "too narrow" not in of_list[-1]


def test_without_resamples_there_are_no_intervals(folder, capsys):
    arguments = ["evaluate", "--model", str(DEMO_TEACHER), "--faces", str(folder / "lfw.bin")]
    assert main([*arguments, "--resamples", "0", "--fprs", "0.2"]) == 0
    text = capsys.readouterr().out
    assert "[" not in text and "interval" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "{0}/pairs.csv"], "--pairs needs --faces"),
        (["--faces", "{0}/lfw.bin", "--pairs", "{0}/pairs.csv"], "is no folder"),
        (["--faces", "{0}/faces", "--pairs", "{0}/none.csv"], "no such list of pairs"),
        (["--faces", "{0}/none.bin"], "no such verification set"),
        (["--faces", "{0}/lfw.bin", "--fprs", "2"], "rates above 0 and up to 1"),
    ],
)
def test_wrong_calls_are_one_line(folder, capsys, arguments, message):
    arguments = [argument.format(folder) for argument in arguments]
    assert main(["evaluate", "--model", str(DEMO_TEACHER), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_file_without_impostor_pairs_says_so(tmp_path, capsys):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "PNG")
    content = ([buffer.getvalue()] * 4, [True, True])
    (tmp_path / "own.bin").write_bytes(pickle.dumps(content))
    arguments = ["evaluate", "--model", str(DEMO_TEACHER), "--faces", str(tmp_path / "own.bin")]
    assert main(arguments) == 2
    assert "own has no impostor pair" in capsys.readouterr().err


def test_embedding_a_verification_file_points_to_evaluate(folder, tmp_path, capsys):
    out = str(tmp_path / "e.safetensors")
    arguments = ["embed", "--model", str(DEMO_TEACHER), "--faces", str(folder / "lfw.bin")]
    assert main([*arguments, "--out", out]) == 2
    assert "`ekd-lite evaluate --model MODEL" in capsys.readouterr().err


def test_a_list_shorter_than_its_folds_says_so(folder, tmp_path, capsys):
    lines = (folder / "pairs.csv").read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(lines[:5]))
    arguments = ["--faces", str(folder / "faces"), "--pairs", str(tmp_path / "few.csv")]
    assert main(["evaluate", "--model", str(DEMO_TEACHER), *arguments]) == 2
    assert "few has fewer pairs than the 10 folds" in capsys.readouterr().err


def test_no_message_advises_to_load_a_file_unsafely(tmp_path, capsys):
    for name, data in (("junk.npy", b"x" * 50), ("objects.npy", None)):
        path = tmp_path / name
        if data is None:
            np.save(path, np.array([None, 1], dtype=object))
        else:
            path.write_bytes(data)
        assert main(["evaluate", "--source", str(path), "--faces", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert "it holds no plain array" in said
        assert "pickle" not in said
