"""A teacher of your own, any nn.Module, in whatever form it takes and gives.

For your own data: put your net in place of `Yours`, say in `Teacher(...)` what its pixels and its
output are, and give `ImageFolder("DIR", image_size=112)` (DIR/person/image.jpg) for `faces`. Take
thousands of steps, a backbone such as "mobilefacenet", and `image_size=112` in `TrainConfig`.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import SyntheticFaces, cache_faces
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.train import Teacher, TrainConfig, fit, load_backbone


class Yours(nn.Module):
    """Stands for the net of your company: blue, green, red in 0..255 in, a dictionary out."""

    def __init__(self) -> None:
        super().__init__()
        self.net, _ = load_backbone(DEMO_TEACHER)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Embeddings (N, D) of images (N, 3, 32, 32), and their lengths, a kind of quality."""
        embeddings = self.net(images.flip(1) / 127.5 - 1)
        return {"quality": embeddings.norm(dim=1), "embedding": embeddings}


def main() -> None:
    """Distil it into a small net, and compare both on people whom neither has seen."""
    faces = cache_faces(SyntheticFaces(60, 10))
    strangers = cache_faces(SyntheticFaces(40, 6, first_identity=6000))
    teacher = Teacher(
        Yours(), input_size=32, colour="bgr", pixel_range=(0, 255), output="embedding"
    )
    config = TrainConfig(method="fitnet", steps=50, general=16, identities=4, margin=0.2)
    # Before the first step fit prints the teacher's TPR, and suspects aloud wrong pixels.
    model = fit(config, faces, Path("runs/own_teacher"), teacher=teacher, progress=False)
    student, _ = load_backbone(model)
    for name, net in (("teacher", teacher), ("student", student)):
        (tpr,) = all_pairs_tpr_at_fpr(embed(net, strangers), strangers.labels, 1e-1).tolist()
        print(f"{name}: TPR {tpr:.1%} at FPR 1e-1 on strangers")


if __name__ == "__main__":
    main()
