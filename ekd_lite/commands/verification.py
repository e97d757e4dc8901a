"""The part of `ekd-lite evaluate` that tells pairs apart: `lfw.bin` and its like, or a list."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ekd_lite.data import FaceSet, ImageFolder, VerificationSet, read_pairs, read_verification_bin
from ekd_lite.data.pair_lists import Subset
from ekd_lite.evaluate import (
    VERIFICATION_SETS,
    UndefinedMetricWarning,
    bootstrap_pair_list,
    verification_accuracy,
)
from ekd_lite.evaluate.embedding import embed_views
from ekd_lite.evaluate.lfw import split_folds
from ekd_lite.ops import false_accepts_at

FOLDS = 10  # as the papers have them
MIN_FALSE_ACCEPTS = 10  # of a level with an interval


def evaluate_pairs(
    net: nn.Module,
    pairs: VerificationSet,
    name: str,
    *,
    fprs: tuple[float, ...],
    resamples: int,
) -> None:
    """Print accuracy over ten folds and TPR at FPR over all pairs, with their intervals.

    As the papers do, an image's embedding is added to that of its mirror image.

    Args:
        net: image -> embedding.
        pairs: the set.
        name: of the list; a public one of another size is pointed out.
        fprs: false-positive rates.
        resamples: draws behind every interval; 0 leaves them out.
    """
    flags = pairs.is_genuine
    num_impostor = int((~flags).sum())
    print(f"{name}: {len(flags):,} pairs, {len(flags) - num_impostor:,} of them genuine")
    public = VERIFICATION_SETS.get(name.lower())
    if public is not None and len(flags) != public.num_pairs:
        print(f"this is not the public set {name}, which has {public.num_pairs:,} pairs")
    if not 0 < num_impostor < len(flags):
        kind = "impostor" if not num_impostor else "genuine"
        raise ValueError(f"{name} has no {kind} pair: nothing can be measured")
    shown = [fpr for fpr in fprs if false_accepts_at(fpr, num_impostor)]
    for fpr in fprs:
        if fpr not in shown:
            print(f"FPR {fpr:g}: not measurable with {num_impostor:,} impostor pairs")
    if pairs.fold is None and len(flags) < FOLDS:
        raise ValueError(f"{name} has fewer pairs than the {FOLDS} folds of this measure")
    folds = FOLDS if pairs.fold is None else pairs.fold
    split_folds(folds, flags.numpy())  # before minutes of work
    left = _embed_both_views(net, pairs.left, "left")
    right = _embed_both_views(net, pairs.right, "right")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # the lines above say it
        result = verification_accuracy(
            left[0],
            right[0],
            flags,
            mirrored=(left[1], right[1]),
            folds=folds,
            fprs=shown or [1.0],
        )
    print(
        f"accuracy {100 * result.accuracy:.2f} % ± {100 * result.accuracy_std:.2f} over "
        f"{len(result.fold_accuracies)} folds, threshold from the other folds"
    )
    people = _people(pairs)
    if resamples and shown:
        low, high = bootstrap_pair_list(
            result.scores, flags, shown, people=people, num_resamples=resamples
        )
    for place, fpr in enumerate(shown):
        interval = ""
        if resamples and false_accepts_at(fpr, num_impostor) < MIN_FALSE_ACCEPTS:
            interval = f", no interval: it needs {MIN_FALSE_ACCEPTS} false accepts"
        elif resamples and not math.isnan(low[place]):
            interval = f" [{100 * float(low[place]):.2f}, {100 * float(high[place]):.2f}]"
        print(f"FPR {fpr:g}: TPR {100 * float(result.tpr[place]):6.2f} %{interval}")
    if resamples and shown and people is None:
        print("intervals draw pairs, since the file names no people: they are too narrow")


def open_pairs(faces: Path, listed: Path | None, *, image_size: int) -> tuple[VerificationSet, str]:
    """The pairs of a `.bin` file, or of a list over a folder of faces, and the list's name."""
    if listed is None:
        return read_verification_bin(faces, image_size=image_size), faces.stem
    if not faces.is_dir():
        raise ValueError(f"--pairs is a list over a folder of faces: {faces} is no folder")
    return read_pairs(listed, ImageFolder(faces, image_size=image_size)), listed.stem


def _embed_both_views(net: nn.Module, faces: FaceSet, side: str) -> tuple[Tensor, Tensor]:
    """Embeddings of the images and of their mirror images."""
    plain, mirrored = embed_views(net, faces, progress=f"embedding, {side}")
    return plain, mirrored


def _people(pairs: VerificationSet) -> tuple[Tensor, Tensor] | None:
    """Who is on the two sides; None if the file does not know."""
    if not isinstance(pairs.left, Subset) or not isinstance(pairs.right, Subset):
        return None
    sides = pairs.left.labels, pairs.right.labels
    return sides if torch.equal(sides[0] == sides[1], pairs.is_genuine) else None
