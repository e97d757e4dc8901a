"""Faces in a form of your own: any torch dataset of (image, label), here photographs and a list.

For your own data: let `Photos` read what you have. An image may be a PIL image of any size, bytes
or floats in [-1, 1]; a label is a number. `ImageFolder` reads a tree DIR/person/image.jpg.
"""

from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset, Subset

from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import FaceDataset, SyntheticFaces, cache_faces
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.train import TrainConfig, fit, load_backbone


class Photos(Dataset[tuple[Image.Image, int]]):
    """The photographs that list.csv names, a line `file,person` each."""

    def __init__(self, folder: Path) -> None:
        lines = (folder / "list.csv").read_text(encoding="utf-8").splitlines()
        rows = [line.split(",") for line in lines]
        self.files = [folder / file for file, _ in rows]
        self.classes = sorted({person for _, person in rows})  # FaceDataset takes the names,
        self.targets = [self.classes.index(person) for _, person in rows]  # and the labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.open(self.files[index]), self.targets[index]


def main() -> None:
    """Train on the first 40 people, 400 photographs, and measure on the others."""
    write_photos(Path("photos"))  # leave it out when you have some
    photos = Photos(Path("photos"))
    faces = FaceDataset(Subset(photos, range(400)), image_size=32)
    strangers = FaceDataset(Subset(photos, range(400, 600)), image_size=32)
    print(f"{len(faces)} photographs of {faces.num_identities} people, {len(strangers)} of others")
    config = TrainConfig(method="fitnet", teacher=str(DEMO_TEACHER), steps=50, identities=4)
    student, _ = load_backbone(fit(config, faces, Path("runs/own_faces"), progress=False))
    (tpr,) = all_pairs_tpr_at_fpr(embed(student, strangers), strangers.labels, 1e-1).tolist()
    print(f"student: TPR {tpr:.1%} at FPR 1e-1 on strangers")


def write_photos(folder: Path) -> None:
    """Photographs to show this with, 60 people with 10 each."""
    faces, lines = cache_faces(SyntheticFaces(60, 10)), ""
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(faces.batch(range(len(faces))).add(1).mul(127.5).byte()):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
        lines += f"{i}.png,person {faces.labels[i]:03}\n"
    (folder / "list.csv").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
