"""EKD in a training loop of your own: batches, nets, losses and optimizer, nothing hidden.

For your own data: in place of `faces` and `strangers`, `ImageFolder("DIR", image_size=112)` of two
folders (DIR/person/image.jpg) that share no person; your teacher's file in place of DEMO_TEACHER; a
backbone such as "mobilefacenet"; thousands of steps with 100 images or more.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from ekd_lite.assets import DEMO_TEACHER
from ekd_lite.data import IdentityBalancedSampler, SyntheticFaces, cache_faces
from ekd_lite.distill import EKDLoss
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, embed
from ekd_lite.heads import ArcFace
from ekd_lite.models import build_backbone
from ekd_lite.train import Teacher

STEPS, WIDTH = 60, 128


def main() -> None:
    """Train a student for a few seconds, and measure it on people whom it has never seen."""
    torch.manual_seed(0)
    faces = cache_faces(SyntheticFaces(60, 10))
    strangers = cache_faces(SyntheticFaces(40, 6, first_identity=6000))
    teacher = Teacher.from_file(DEMO_TEACHER)
    rows = embed(teacher, faces)  # once: neither images nor teacher change

    student = build_backbone("tiny_student", embedding_dim=WIDTH, image_size=faces.image_size)
    head = ArcFace(WIDTH, faces.num_identities, scale=28.0, margin=0.2)
    # 48 images make some 1,100 impostor pairs: enough to show rates of 1e-1 and 1e-2.
    ekd = EKDLoss(fprs=(1e-1, 1e-2), temperature=0.1)
    optimizer = torch.optim.AdamW([*student.parameters(), *head.parameters()], lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    # Half of a batch are random images, half are four images each of six people.
    sampler = IdentityBalancedSampler(faces.labels, general=24, identities=6, num_steps=STEPS)

    student.train()
    for step, batch in enumerate(sampler, start=1):
        labels = faces.labels[batch]
        embeddings = student(faces.batch(batch))
        identity = cross_entropy(head(embeddings, labels), labels)
        distilled = ekd(embeddings, rows[batch], labels)
        optimizer.zero_grad()
        (identity + 64 * distilled).backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            print(f"step {step}: identity loss {identity:.2f}, EKD {distilled:.4f}")
    for name, net in (("teacher", teacher), ("student", student)):
        (tpr,) = all_pairs_tpr_at_fpr(embed(net, strangers), strangers.labels, 1e-1).tolist()
        print(f"{name}: TPR {tpr:.1%} at FPR 1e-1 on strangers")


if __name__ == "__main__":
    main()
