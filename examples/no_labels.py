"""A folder of crops without names, under a published teacher: nobody says who is who.

For your own data: your crops in `crops/all/`, any file names; your teacher (`Teacher.from_file`,
`Teacher.from_onnx`) in place of DEMO_TEACHER; a small public set with labels, of people whom the
teacher was not trained on, in place of `named`: the threshold comes from there. Choose an FPR of
about one in the number of your crops. Labels are wanted nowhere else, save to measure in the end.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import ImageFolder, SyntheticFaces, cache_faces
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.train import Teacher, TrainConfig, fit, load_backbone


def main() -> None:
    """Distil by embeddings (FitNet) and by the teacher's decisions (EKD), and measure."""
    write_crops(Path("crops/all"))  # leave it out when you have some
    crops = ImageFolder("crops", image_size=32)  # one sub-folder: to the set, one person
    teacher = Teacher.from_file(DEMO_TEACHER)
    named = cache_faces(SyntheticFaces(40, 6, first_identity=6000))
    threshold = teacher.threshold_at(named, fpr=1e-3)
    print(f"{len(crops)} crops; the teacher holds two for one person from {threshold:.3f} on")

    strangers = cache_faces(SyntheticFaces(40, 6, first_identity=9000))
    for method in ("fitnet", "fitnet+ekd_decisions"):
        config = TrainConfig(
            method=method,
            identity_weight=0.0,  # no margin softmax, which is what needs labels
            sampler="neighbours",  # genuine pairs: crops that the teacher accepts for one another
            teacher_threshold=threshold,
            steps=50,
            general=16,
            identities=4,
        )
        model = fit(config, crops, Path("runs", method), teacher=teacher, progress=False)
        rows = embed(load_backbone(model)[0], strangers)
        (tpr,) = all_pairs_tpr_at_fpr(rows, strangers.labels, 1e-1).tolist()
        print(f"student, {method}: TPR {tpr:.1%} at FPR 1e-1 on strangers")


def write_crops(folder: Path) -> None:
    """Crops to show this with, in an order that says nothing."""
    faces = cache_faces(SyntheticFaces(60, 10))
    folder.mkdir(parents=True, exist_ok=True)
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
    for i, image in enumerate(faces.batch(order).add(1).mul(127.5).byte()):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")


if __name__ == "__main__":
    main()
