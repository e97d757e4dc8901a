"""Files that were made to harm: refused in bounded time and memory, and nothing in them runs.

A process of its own reads them one after the other and measures itself.
"""

import hashlib
import io
import json
import os
import pickle
import random
import struct
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from ekd_lite.train.checkpoint import CHECKPOINT_MAGIC, load_checkpoint
from ekd_lite.train.distributed import to_bytes
from tests.faults import data_jobs, jobs
from tests.faults.damage import mutate
from tests.faults.hostile_pickles import ATTACKS, MARKER, hostile_bin
from tests.faults.scale import cases
from tests.processes import start

pytestmark = [pytest.mark.starts_process, pytest.mark.timeout(3000)]
MAX_SECONDS, MAX_MEGABYTES = 1.0, 150.0  # CPU time, and memory more than before, for one file


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, whose files are the genuine ones."""
    folder = tmp_path_factory.mktemp("run")
    assert start(jobs.train, str(folder / "run"), log=folder / "log").wait() == 0
    return folder / "run"


def read_all(kind, good, files, tmp_path):
    """What came of each file in a process of its own; no code in it may have run."""
    folder, place = tmp_path / "files", tmp_path / "place"
    folder.mkdir()
    place.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    result = tmp_path / "result"
    process = start(data_jobs.read_hostile, kind, str(good), str(folder), str(result),
                    log=tmp_path / "log", cwd=str(place))  # fmt: skip
    assert process.wait(300) == 0, process.output
    assert list(place.iterdir()) == [], "something was executed"
    found = json.loads(result.read_text())
    assert found.keys() == files.keys()
    return found


def check(what, found, count, *, may_be_read=()):
    """Count them; `may_be_read`: beginnings of names of files that may be good by chance."""
    outcomes = Counter(outcome for outcome, *_ in found.values())
    slowest = max(found, key=lambda name: found[name][1])
    largest = max(found, key=lambda name: found[name][2])
    seconds, more = found[slowest][1], found[largest][2]
    count(
        f"hostile files, {what}",
        f"{len(found)} files, {outcomes['refused']} refused, {outcomes['read']} read, 0 executed, "
        f"at most {seconds:.2f} s and {more:.0f} MB more",
    )
    allowed = {
        name: ("refused", "read") if name.startswith(may_be_read) else ("refused",)
        for name in found
    }
    odd = {name: one[0] for name, one in found.items() if one[0] not in allowed[name]}
    assert not odd
    assert seconds <= MAX_SECONDS, slowest
    assert more <= MAX_MEGABYTES, largest


def test_hostile_verification_sets(tmp_path, count):
    rng = random.Random(0)  # noqa: S311
    good = tmp_path / "good.bin"
    good.write_bytes(pickle.dumps(([b"a"] * 4, [True, False])))
    files = {
        f"{name}.{number}": hostile_bin(attack, rng)
        for name, attack in ATTACKS.items()
        for number in range(cases(6, 60))
    }
    found = read_all("bin", good, files, tmp_path)
    check("bin", found, count)


def test_mutated_hostile_verification_sets(tmp_path, count):
    """Some are good by chance, or no longer hostile."""
    rng = random.Random(1)  # noqa: S311
    good = tmp_path / "good.bin"
    good.write_bytes(pickle.dumps(([b"a"] * 4, [True, False])))
    seeds = [good.read_bytes(), pickle.dumps(([bytearray(b"ab")] * 4, [1.0, 0.0]), 5)]
    seeds += [hostile_bin(attack, rng) for attack in ATTACKS.values()]
    files = {str(k): mutate(rng.choice(seeds), rng) for k in range(cases(50, 1000))}
    check("bin, mutated", read_all("bin", good, files, tmp_path), count, may_be_read=("",))


ABSURD = [
    *(0, -1, -(10**30), 1, 1.5, 3 * 10**6, 10**9, 10**12, 10**18, 10**30, 1e308, True, None, "16"),
    *("", [], {}, [16], float("nan"), float("inf"), "../x", "a" * 10_000),
]
# What decides the shapes; a scale or a margin may be any number.
KEYS = {"backbone": ("backbone", "embedding_dim", "image_size")}
KEYS["model"] = (*KEYS["backbone"], "head", "num_identities")


def hostile_model(tensors, info, keys, rng):
    """A genuine file but for its description, or for what its header says of the tensors."""
    info, kind = dict(info), rng.randrange(5)
    metadata = {"format": "ekd_lite.model.1"}
    if kind < 3:
        for key in rng.sample(keys, rng.randrange(1, 4)):
            info[key] = rng.choice([x for x in ABSURD if x != info[key]])
    metadata["info"] = json.dumps(info)
    if kind == 3:
        metadata["info"] = rng.choice(["[" * 50_000, "", "null", "[]", "3", '{"backbone":', "{}"])
    if kind == 4:
        return lying_header(save(tensors, metadata), rng)
    if rng.random() < 0.3:  # some hundred bytes
        tensors = {}
    return save(tensors, metadata)


def lying_header(data, rng):
    """A tensor of another shape, dtype or place than its bytes have."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    change = rng.randrange(4)
    if change == 0:
        entry["shape"] = rng.choice([[10**9, 10**9], [1 << 62], [-1], [0], [1] * 5000, ["x"], None])
    elif change == 1:
        entry["data_offsets"] = rng.choice([[0, 1 << 60], [5, 1], [-4, 4], [0, 0], [0], [0, 1, 2]])
    elif change == 2:
        entry["dtype"] = rng.choice(["F4096", "", None, "F64", "BOOL", 3])
    else:
        text = json.dumps(header).encode()
        length = rng.choice([1 << 63, (1 << 64) - 1, 100_000_000, size - 1, 0])
        return struct.pack("<Q", length) + text + data[8 + size :]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


@pytest.mark.parametrize("kind", ["model", "backbone"])
def test_hostile_models(run, tmp_path, kind, count):
    rng = random.Random(kind)  # noqa: S311
    path = run / "model.safetensors"
    tensors = load_file(path)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    info = json.loads(header["__metadata__"]["info"])
    number = cases(30, 250)
    files = {f"hostile.{k}": hostile_model(tensors, info, KEYS[kind], rng) for k in range(number)}
    files |= {f"mutated.{k}": mutate(data, rng) for k in range(number)}
    for key in KEYS[kind]:  # and each of the absurd values once, alone
        for k, value in enumerate(x for x in ABSURD if x != info[key]):
            metadata = {"format": "ekd_lite.model.1", "info": json.dumps({**info, key: value})}
            files[f"{key}.{k}"] = save(tensors, metadata)
    check(kind, read_all(kind, path, files, tmp_path), count, may_be_read=("mutated",))


class Touches:
    """What `pickle` would make of it is a file."""

    def __init__(self, call, *arguments):
        self.reduced = call, arguments

    def __reduce__(self):
        return self.reduced


def touching(rng):
    return rng.choice([
        Touches(os.system, f"touch {MARKER}"), Touches(eval, f"open({MARKER!r}, 'w')"),
        Touches(exec, f"open({MARKER!r}, 'w')"), Touches(open, MARKER, "w"),
        Touches(Path(MARKER).touch), Touches(torch.save, torch.zeros(1), MARKER),
        Touches(torch.load, MARKER), Touches(getattr, torch.nn.Linear, "__init__"),
    ])  # fmt: skip


def sealed(payload):
    """With the right checksum, so that only its content can be found fault with."""
    return CHECKPOINT_MAGIC + hashlib.sha256(payload).digest() + payload


def hostile_checkpoint(state, rng):
    state, kind = dict(state), rng.randrange(6)
    if kind == 0:
        state[rng.choice(sorted(state))] = touching(rng)
    elif kind == 1:
        state[rng.choice(["backbone", "head", "optimizer"])] = {"x": [touching(rng)]}
    elif kind == 2:  # shapes of terabytes, on a storage of 4 bytes
        size = rng.choice([(1 << 40,), (1 << 20, 1 << 20), (1 << 62,)])
        state["head"] = {"prototypes": torch.zeros(1).expand(size)}
    elif kind == 3:
        key = rng.choice(["backbone", "head", "optimizer", "step", "config"])
        state[key] = rng.choice([None, [], {}, "x", 10**30, torch.zeros(3), b"x", [[[]]]])
    elif kind == 4:
        return sealed(pickle.dumps(touching(rng), rng.randrange(6)))
    else:
        old = io.BytesIO()
        torch.save(touching(rng), old, _use_new_zipfile_serialization=False)
        return sealed(old.getvalue())
    return sealed(to_bytes(state))


def test_hostile_checkpoints(run, tmp_path, count):
    """Sealed with a right checksum; mutated ones too, of which some bytes are only weights."""
    rng = random.Random(3)  # noqa: S311
    path = run / "checkpoint.pt"
    state, number = load_checkpoint(path), cases(15, 150)
    files = {f"hostile.{k}": hostile_checkpoint(state, rng) for k in range(number)}
    payload = path.read_bytes()[len(CHECKPOINT_MAGIC) + 32 :]
    files |= {f"mutated.{k}": sealed(mutate(payload, rng)) for k in range(number)}
    files |= {f"torn.{k}": mutate(path.read_bytes(), rng) for k in range(number)}
    check("checkpoint", read_all("checkpoint", path, files, tmp_path), count,
          may_be_read=("mutated",))  # fmt: skip
