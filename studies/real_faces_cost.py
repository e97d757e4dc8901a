"""What the nets of `studies/real_faces.py` cost: a table of `real_faces_tables.py`.

Milliseconds are of one image on one core through onnxruntime, by turns; read their ratios. Lines of
nets whose runs are gone stay as the table has them.
"""

from __future__ import annotations

import csv
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from lfw import Row, read_faces
from real_faces import sface
from real_faces_phone import COUNTS, LEVELS, TEACHER, TPR, percent
from real_faces_plan import BARE, Run

from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.export import OnnxModel, calibration_images, export_onnx, quantize_int8
from ekd_lite.export.compare import time_interleaved
from ekd_lite.models import profile_backbone
from ekd_lite.train import load_model

if TYPE_CHECKING:
    from real_faces_tables import Nets

TABLE = Path(__file__).resolve().parent.parent / "data" / "results" / "real_faces_cost.csv"


def cost(nets: Nets) -> Iterator[Row]:
    """What the nets cost, and what int8 does to them: the seed 0 of FitNet without labels."""
    labels = nets.test.images.labels
    best = longest(nets)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        teacher = sface(nets.work)
        image = read_faces(nets.data, nets.work, "test", size=112).images.batch([0])
        times = time_interleaved({TEACHER: teacher}, image, rounds=10, calls=3)
        yield {
            "net": TEACHER,
            "size": "112",
            "parameters": "9670000",
            "macs": str(onnx_macs(nets.work / "sface.onnx")),
            "format": "ONNX, int8 weights",
            "ms": f"{times[TEACHER]:.1f}",
        }
        for (backbone, size), run in sorted(best.items()):
            model = load_model(nets.work / run.name / "model.safetensors")
            profile = profile_backbone(model.backbone, image_size=size, repeats=5)
            float_path, small = path / "float.onnx", path / "int8.onnx"
            export_onnx(model.backbone, float_path, info=model.info)
            train = read_faces(nets.data, nets.work, "train", size=size).images
            quantize_int8(float_path, small, calibration=calibration_images(train))
            seen = read_faces(nets.data, nets.work, "test", size=size).images
            sessions = {
                name: OnnxModel(file, threads=1)
                for name, file in (("ONNX, float32", float_path), ("ONNX, int8", small))
            }
            times = time_interleaved(sessions, seen.batch([0]), rounds=20)
            for name, session in sessions.items():
                rows = embed(session, seen)
                found: Row = {}
                for by in COUNTS:
                    tpr = all_pairs_tpr_at_fpr(rows, labels, LEVELS, by=by)  # type: ignore[arg-type]
                    found |= {f"{n}_by_{by}": percent(t) for n, t in zip(TPR, tpr, strict=True)}
                head = {"net": backbone, "size": str(size), "images": str(run.images)}
                head |= {"parameters": str(profile.parameters)}
                yield (
                    head
                    | {"macs": str(profile.macs), "format": name, "ms": f"{times[name]:.2f}"}
                    | found
                )
    yield from as_before(set(best))


def longest(nets: Nets) -> dict[tuple[str, int], Run]:
    """Of each net and size the run, seed 0 of FitNet without labels, that saw the most images."""
    tried = nets.finished("recipe")  # they were there to be chosen from
    plain = [r for r in nets.runs if (r.row, r.seed, r.share, r.drawn) == (BARE, 0, 1, False)]
    plain = sorted((r for r in plain if r not in tried), key=lambda run: run.images)
    return {(run.backbone, run.size): run for run in plain}


def as_before(measured: set[tuple[str, int]]) -> Iterator[Row]:
    """Lines of the table as it is, of students that were not measured now."""
    if TABLE.exists():
        with TABLE.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["net"] != TEACHER and (row["net"], int(row["size"])) not in measured:
                    yield dict(row)


def onnx_macs(path: Path) -> int:
    """Multiply-adds of the convolutions and products of an ONNX file, for one image."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True).graph
    shapes = {one.name: list(one.dims) for one in graph.initializer}
    for one in (*graph.input, *graph.value_info, *graph.output):
        sides = [side.dim_value or 1 for side in one.type.tensor_type.shape.dim]  # free: one image
        shapes.setdefault(one.name, sides)
    macs = 0
    for node in graph.node:
        if node.op_type == "Conv":
            each = shapes[node.input[1]][1:]  # input channels of a group, and the kernel
        elif node.op_type in ("Gemm", "MatMul"):
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            each = shapes[node.input[1]][-1 if transposed else -2 :][:1]
        else:
            continue
        macs += math.prod(shapes[node.output[0]]) * math.prod(each)
    return macs
