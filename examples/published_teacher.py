"""A published net, an ONNX file, teaches a small one: pip install "ekd-lite[export]".

For your own data: `Teacher.from_onnx("face_recognition_sface.onnx", pixel_range=(0, 255))`, or, for
checkpoints of TFace, AdaFace, CVLface and insightface, `Teacher.from_file("net.ckpt")`, which sets
the pixels itself; `ImageFolder("DIR", image_size=112)` (DIR/person/image.jpg) for `faces`; and
thousands of steps with `backbone="mobilefacenet", image_size=112`.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import FaceSet, SyntheticFaces, cache_faces
from ekd_lite.evaluate import bootstrap_tpr_at_fpr, embed
from ekd_lite.export import export_onnx
from ekd_lite.train import Teacher, TrainConfig, fit, load_backbone


def main() -> None:
    """Measure the teacher first, then distil it, then measure the student."""
    file = Path("published.onnx")
    net, info = load_backbone(DEMO_TEACHER)
    export_onnx(net, file, info=info)  # stands for a file that somebody has published

    # What you do not say is taken from the graph (the size) or as usual here (RGB in -1..1).
    teacher = Teacher.from_onnx(file, colour="rgb", pixel_range=(-1, 1))
    print(f"{file.name} takes images of {teacher.input_size} pixels")
    faces = cache_faces(SyntheticFaces(60, 10))
    strangers = cache_faces(SyntheticFaces(40, 6, first_identity=6000))
    report("teacher", teacher, strangers)  # a low number here means: wrong pixels, or wrong crops

    config = TrainConfig(method="fitnet", steps=50, general=16, identities=4, margin=0.2)
    model = fit(config, faces, Path("runs/published_teacher"), teacher=teacher, progress=False)
    report("student", load_backbone(model)[0], strangers)


def report(name: str, net: nn.Module, faces: FaceSet) -> None:
    """Print the TPR with its 95 % interval over people."""
    result = bootstrap_tpr_at_fpr(embed(net, faces), faces.labels, 1e-1, num_resamples=200)
    low, high = float(result.low), float(result.high)
    print(f"{name}: TPR {float(result.estimate):.1%} [{low:.1%}, {high:.1%}] at FPR 1e-1")


if __name__ == "__main__":
    main()
