"""`ekd-lite embed` and `evaluate`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ekd_lite.data import ImageFolder, load_splits
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, bootstrap_tpr_at_fpr, count_pairs, embed
from ekd_lite.files import write_atomically
from ekd_lite.ops import false_accepts_at
from ekd_lite.train.model_file import load_backbone

FPRS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def measurable(fprs: Iterable[float], labels: Tensor) -> tuple[float, ...]:
    """The levels that the impostor pairs of `labels` can show."""
    num_impostor = count_pairs(labels)[1]
    return tuple(fpr for fpr in fprs if false_accepts_at(fpr, num_impostor) > 0)


@dataclass(frozen=True)
class Embed:
    """Embed a folder of faces with a trained net."""

    model: Path
    """Run folder or model.safetensors."""
    faces: Path
    """Folder of identity/image.jpg."""
    out: Path = Path("embeddings.safetensors")
    """File for embeddings (N, D) and labels (N,), with the file names in its metadata."""

    def run(self) -> None:
        """Embed and write."""
        backbone, info = load_backbone(self.model)
        faces = ImageFolder(self.faces, image_size=info["image_size"])
        rows = embed(backbone, faces, progress="embedding")
        names = [file.relative_to(faces.root).as_posix() for file in faces.files]
        data = save({"embeddings": rows, "labels": faces.labels}, {"files": json.dumps(names)})
        write_atomically(self.out, data)
        print(f"wrote {self.out}: {tuple(rows.shape)}, {faces.num_identities} identities")


@dataclass(frozen=True)
class Evaluate:
    """TPR at FPR over all pairs, with 95 % intervals from an identity bootstrap."""

    source: Path
    """Embeddings written by `embed`; or a run folder or model, to be tested on unseen people."""
    faces: Path | None = None
    """With a model: the folder it was trained from; procedural faces if left out."""
    fprs: tuple[float, ...] = FPRS
    """False-positive rates."""
    resamples: int = 1000
    """Bootstrap resamples; 0 leaves the intervals out."""

    def run(self) -> None:
        """Print the table."""
        rows, labels = self._embeddings()
        num_genuine, num_impostor = count_pairs(labels)
        print(f"{len(rows):,} images, {num_genuine:,} genuine and {num_impostor:,} impostor pairs")
        shown = measurable(self.fprs, labels)
        for fpr in set(self.fprs) - set(shown):
            print(f"FPR {fpr:.0e}: not measurable with {num_impostor:,} impostor pairs")
        if self.resamples:
            result = bootstrap_tpr_at_fpr(rows, labels, shown, num_resamples=self.resamples)
            for m, fpr in enumerate(shown):
                low, high = 100 * float(result.low[m]), 100 * float(result.high[m])
                tpr = 100 * float(result.estimate[m])
                print(f"FPR {fpr:.0e}: TPR {tpr:6.2f} % [{low:.2f}, {high:.2f}]")
        else:
            tprs = all_pairs_tpr_at_fpr(rows, labels, shown).tolist()
            for fpr, tpr in zip(shown, tprs, strict=True):
                print(f"FPR {fpr:.0e}: TPR {100 * tpr:6.2f} %")

    def _embeddings(self) -> tuple[Tensor, Tensor]:
        """Read them, or make them with a model."""
        if self.source.is_file():
            try:
                tensors = load_file(self.source)
            except SafetensorError as error:
                raise ValueError(f"{self.source} is no safetensors file: {error}") from error
            if {"embeddings", "labels"} <= tensors.keys():
                return tensors["embeddings"], tensors["labels"]
        backbone, info = load_backbone(self.source)
        test = load_splits(self.faces, image_size=info["image_size"]).test
        return embed(backbone, test, progress="embedding"), test.labels
