"""`ekd-lite embed` and `evaluate`."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from safetensors.torch import save
from torch import Tensor

from ekd_lite.commands.net_options import NetOptions, open_net, size_to_read
from ekd_lite.commands.outputs import check_output
from ekd_lite.commands.own_net import own_net
from ekd_lite.commands.rates import Rates, check_measurable, measurable
from ekd_lite.commands.verification import MIN_FALSE_ACCEPTS, evaluate_pairs, open_pairs
from ekd_lite.data import FaceSet, ImageFolder, load_splits, open_faces
from ekd_lite.data.opening import open_any_size
from ekd_lite.evaluate import (
    UndefinedMetricWarning,
    all_pairs_tpr_at_fpr,
    bootstrap_tpr_at_fpr,
    count_pairs,
    embed,
)
from ekd_lite.evaluate.inputs import as_labels, as_rows, check_finite
from ekd_lite.files import write_atomically
from ekd_lite.ops import false_accepts_at
from ekd_lite.train.origin import faces_origin
from ekd_lite.train.teacher_file import holds_rows, read_teacher_file
from ekd_lite.train.teacher_fit import rows_of_others

FPRS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True)
class Embed:
    """Embed a set of faces with a net of ekd_lite or of anybody else."""

    model: Path
    """Run folder or model.safetensors, published checkpoint (.pth, .pt, .ckpt, .safetensors) or
    .onnx file."""
    faces: Path
    """Folder of identity/image.jpg, .rec file or packed set."""
    out: Path = Path("embeddings.safetensors")
    """File for embeddings (N, D) and labels (N,); with what they are of, and a folder's file names,
    in its metadata."""
    student_module: str | None = None
    """What makes the net, package.module:callable, if it is one of your own."""
    net: NetOptions = field(default_factory=NetOptions)

    def run(self) -> None:
        """Embed and write."""
        check_output(self.out, self.model, self.faces, form=".safetensors")
        net = open_net(self.model, self.net, student=own_net(self.student_module))
        if net.rows is not None:
            raise ValueError(
                f"{self.model} holds embeddings already: `ekd-lite evaluate --source "
                f"{self.model} --faces ...` measures them"
            )
        faces = open_faces(self.faces, image_size=size_to_read(net))
        rows = embed(net, faces, progress="embedding")
        metadata = {"origin": json.dumps(faces_origin(faces, whole=True) | net.origin(head=False))}
        if isinstance(faces, ImageFolder):
            files = [file.relative_to(faces.root).as_posix() for file in faces.files]
            metadata["files"] = json.dumps(files)
        data = save({"embeddings": rows, "labels": faces.labels}, metadata)
        write_atomically(self.out, data)
        print(f"wrote {self.out}: {tuple(rows.shape)}, {faces.num_identities} identities")


@dataclass(frozen=True)
class Evaluate:
    """TPR at FPR with 95 % intervals, over all pairs of a set or over the pairs of a list."""

    source: Annotated[Path, tyro.conf.arg(aliases=("--model",))]
    """Embeddings written by `embed`; a table of rows (.npy, .safetensors), in the order of --faces;
    or a run folder, model, published checkpoint or .onnx file, to be tested on unseen people."""
    faces: Path | None = None
    """With a net: the folder it was trained from, or another, whose unseen people (30 %) are tested
    (procedural faces if left out); or a verification file such as lfw.bin, for the accuracy over
    folds too. With a table of rows: the set that they are of, needed only if the file has no
    labels."""
    pairs: Path | None = None
    """List of pairs over the images of --faces, such as LFW's pairs.txt, those of CALFW and CPLFW,
    or a CSV with the columns left, right, is_genuine: tested in place of all pairs."""
    fprs: Rates = FPRS
    """False-positive rates: 1e-3, 0.1% or 1/1000, with spaces or commas between them."""
    resamples: int = 1000
    """Bootstrap resamples; 0 leaves the intervals out."""
    by: Literal["pair", "person"] = "pair"
    """Whether every genuine pair weighs the same, or every person, however many images there
    are."""
    student_module: str | None = None
    """What makes the net, package.module:callable, if it is one of your own."""
    net: NetOptions = field(default_factory=NetOptions)

    def run(self) -> None:
        """Print the table."""
        if self.resamples < 0:
            raise ValueError(f"--resamples must be 0 (no intervals) or more, got {self.resamples}")
        if self.pairs is not None or (
            self.faces is not None and self.faces.suffix.lower() == ".bin"
        ):
            self._run_on_pairs()
            return
        labels, rows_of = self._open()
        shown = self._announce(labels)
        rows = rows_of()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)  # the lines say it
            if self.resamples:
                result = bootstrap_tpr_at_fpr(
                    rows,
                    labels,
                    shown,
                    num_resamples=self.resamples,
                    min_false_accepts=MIN_FALSE_ACCEPTS,
                    by=self.by,
                )
                tprs, low, high = result.estimate, result.low, result.high
            else:
                tprs = all_pairs_tpr_at_fpr(rows, labels, shown, by=self.by)
        for m, fpr in enumerate(shown):
            interval = ""
            if self.resamples:
                ends = 100 * float(low[m]), 100 * float(high[m])
                interval = f" [{ends[0]:.2f}, {ends[1]:.2f}]"
                if math.isnan(ends[0]):
                    interval = f", no interval: {self._why_none(fpr, labels)}"
            print(f"FPR {_rate(fpr)}: TPR {100 * float(tprs[m]):6.2f} %{interval}")

    def _run_on_pairs(self) -> None:
        """Measure on a list of pairs."""
        if self.by != "pair":
            raise ValueError("--by person is for all pairs of a set: a list has its own pairs")
        if self.faces is None:
            raise ValueError("--pairs needs --faces, the folder that its images are in")
        net = open_net(self.source, self.net, student=own_net(self.student_module))
        if net.rows is not None:
            raise ValueError(f"{self.source} holds embeddings: pairs of images need a net")
        found, name = open_pairs(self.faces, self.pairs, image_size=size_to_read(net))
        evaluate_pairs(net, found, name, fprs=self.fprs, resamples=self.resamples)

    def _why_none(self, fpr: float, labels: Tensor) -> str:
        """Why the bootstrap gives no interval at a level."""
        accepts = false_accepts_at(fpr, count_pairs(labels)[1])
        if accepts < MIN_FALSE_ACCEPTS:
            return f"it needs {MIN_FALSE_ACCEPTS} false accepts, and the level allows {accepts}"
        return "with so few people some resamples cannot show the level"

    def _announce(self, labels: Tensor) -> tuple[float, ...]:
        """Say what the pairs can show, before any work, and return those levels."""
        num_genuine, num_impostor = count_pairs(labels)
        print(
            f"{len(labels):,} images, {num_genuine:,} genuine and {num_impostor:,} impostor pairs"
        )
        shown = measurable(self.fprs, labels)
        for fpr in self.fprs if num_genuine and num_impostor else ():
            if fpr not in shown:
                print(f"FPR {_rate(fpr)}: not measurable with {num_impostor:,} impostor pairs")
        check_measurable(self.fprs, labels)
        return shown

    def _open(self) -> tuple[Tensor, Callable[[], Tensor]]:
        """Labels, and what returns the embeddings: it may have to make them."""
        if holds_rows(self.source):
            return self._open_rows()
        net = open_net(self.source, self.net, student=own_net(self.student_module))
        test = load_splits(self.faces, image_size=size_to_read(net)).test
        return test.labels, lambda: embed(net, test, progress="embedding")

    def _open_rows(self) -> tuple[Tensor, Callable[[], Tensor]]:
        """The same of a table, by its own labels or by the set that it was made from."""
        given = [self.net.names()] if self.net.said() else []
        given += ["--student-module"] if self.student_module is not None else []
        if given:
            raise ValueError(
                f"{self.source} is a table of rows, which has no {', '.join(given)}: those are "
                "for a net"
            )
        told: Any = read_teacher_file(self.source)
        rows = as_rows("embeddings", told.pop("embeddings"))
        check_finite("embeddings", rows)
        if "labels" in told:
            told["labels"] = as_labels("labels", told["labels"], len(rows))
        if self.faces is not None:
            faces = self._faces_of(rows, told)
            return told.get("labels", faces.labels), lambda: rows
        if "labels" not in told:
            raise ValueError(
                f"{self.source} holds embeddings and no labels: name the set that they are of with "
                "--faces"
            )
        return told["labels"], lambda: rows

    def _faces_of(self, rows: Tensor, told: Mapping[str, Any]) -> FaceSet:
        """The set named, compared with what the table's file tells of its own."""
        faces = open_any_size(str(self.faces))
        if len(faces) != len(rows):
            raise ValueError(
                f"{self.source} holds {len(rows):,} embeddings, {self.faces} {len(faces):,} images"
            )
        if "labels" in told or "origin" in told:
            found = rows_of_others(str(self.source), told, faces, faces_origin(faces))
            if found:
                own = "; leave --faces out to go by its own labels" if "labels" in told else ""
                raise ValueError(
                    f"{self.source} is not of --faces {self.faces}: {'; '.join(found)}{own}"
                )
        return faces


def _rate(fpr: float) -> str:
    """A rate as people write it: 1e-03, and 1.5e-02 where one digit is not enough."""
    short = f"{fpr:.0e}"
    return short if float(short) == fpr else f"{fpr:.15g}"
