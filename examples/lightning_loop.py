"""EKD in a LightningModule: pip install lightning. Without it this file says so, and ends.

For your own data: `ImageFolder("DIR", image_size=112)` (DIR/person/image.jpg) for `faces`, your
teacher's file in place of DEMO_TEACHER, a backbone such as "mobilefacenet", thousands of steps.
"""

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, StackDataset, TensorDataset

from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import IdentityBalancedSampler, SyntheticFaces, cache_faces
from ekd_lite.distill import EKDLoss
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.heads import ArcFace
from ekd_lite.models import build_backbone
from ekd_lite.train import Teacher

try:
    import lightning
except ModuleNotFoundError:
    raise SystemExit("this example needs Lightning: pip install lightning") from None


class Distilled(lightning.LightningModule):
    """A student under ArcFace and EKD; its checkpoint holds EKD's thresholds too."""

    def __init__(self, num_identities: int) -> None:
        super().__init__()
        self.student = build_backbone("tiny_student", embedding_dim=128, image_size=32)
        self.head = ArcFace(128, num_identities, scale=28.0, margin=0.2)
        self.ekd = EKDLoss(fprs=(1e-1, 1e-2), temperature=0.1)

    def training_step(self, batch: tuple[list[torch.Tensor], list[torch.Tensor]]) -> torch.Tensor:
        (images, labels), (rows,) = batch
        embeddings = self.student(images)
        identity = cross_entropy(self.head(embeddings, labels), labels)
        return identity + 64 * self.ekd(embeddings, rows, labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3, weight_decay=0.05)


def main() -> None:
    """Train for a few seconds, and measure on people whom it has never seen."""
    lightning.seed_everything(0)
    faces = cache_faces(SyntheticFaces(60, 10))
    rows = embed(Teacher.from_file(DEMO_TEACHER), faces)  # once, not in every step
    batches = IdentityBalancedSampler(faces.labels, general=16, identities=4, num_steps=50)
    loader = DataLoader(StackDataset(faces, TensorDataset(rows)), batch_sampler=batches)
    model = Distilled(faces.num_identities)
    lightning.Trainer(max_epochs=1, logger=False, accelerator="cpu").fit(model, loader)
    strangers = cache_faces(SyntheticFaces(40, 6, first_identity=6000))
    (tpr,) = all_pairs_tpr_at_fpr(embed(model.student, strangers), strangers.labels, 1e-1).tolist()
    print(f"student: TPR {tpr:.1%} at FPR 1e-1 on strangers")


if __name__ == "__main__":
    main()
