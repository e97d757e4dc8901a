"""The images as a teacher sees them, and how well it does on them before it teaches."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ekd_lite.data import FaceSet
from ekd_lite.data.decode import DecodedFaces, decode_image
from ekd_lite.evaluate import all_pairs_tpr_at_fpr, count_pairs, embed
from ekd_lite.ops import false_accepts_at
from ekd_lite.train.checks import check_varies
from ekd_lite.train.teacher import Teacher

LOOKED_AT = 128  # images on which other colour orders and ranges are tried
MEASURED = 2048  # images whose rows are at hand, on which a teacher is measured
FPR = 1e-2
RANGES = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))


def report_teacher(
    teacher: Teacher, faces: FaceSet, seen: FaceSet, rows: Sequence[Tensor] | None
) -> str:
    """What is printed before step 1: at which size a teacher sees the images, and its TPR.

    Args:
        teacher: a net, or rows.
        faces: the training images as the student sees them.
        seen: as the teacher does.
        rows: its embeddings of them, if they are known already.
    """
    size = f"sees images of {teacher.input_size or seen.image_size} pixels, "
    size = "" if teacher.rows is not None else size + f"the student of {faces.image_size}; "
    sample = _Sample(seen, LOOKED_AT if rows is None else MEASURED)
    genuine, impostor = count_pairs(sample.labels)
    levels = [fpr for fpr in (1e-1, 1e-2, 1e-3) if false_accepts_at(fpr, impostor) >= 10]
    text = f"teacher {teacher.name}: {size}"
    if not levels or not genuine:
        return text + "the training images have too few pairs to measure it"
    found = embed(teacher, sample) if rows is None else rows[0][sample.index]
    tpr = all_pairs_tpr_at_fpr(found, sample.labels, levels).tolist()
    numbers = ", ".join(f"{100 * t:.1f} % at FPR {f:.0e}" for t, f in zip(tpr, levels, strict=True))
    return f"{text}TPR on {len(sample):,} training images {numbers}"


def suspect_input(teacher: Teacher, faces: FaceSet) -> None:
    """Warn if a net gets enlarged images, or would do far better on pixels of another form.

    `faces` are the images as it will see them (`seen_by`).

    Nothing in a file says in which order a net wants colours, and on which scale pixels; with the
    wrong ones it still gives embeddings, only worse ones. Far better: the share of genuine pairs
    that are missed at FPR 1e-2 falls by half, and by five points at least. Our own files say what
    they take. A good net is nearly as good with red and blue exchanged: that it may not notice.

    Raises:
        ValueError: it gives NaN, or one embedding for all images.
    """
    if teacher.input_size is not None and teacher.input_size > faces.image_size:
        warnings.warn(
            f"{teacher.name} takes {teacher.input_size} pixels, and images of {faces.image_size} "
            "are enlarged for it, which shows it nothing new. A set that can be read at any size, "
            "as a folder, shows it the larger ones while cache_teacher is true; or give their "
            "embeddings: Teacher.from_rows(embed(teacher, larger))",
            stacklevel=2,
        )
    elif teacher.input_size is not None and isinstance(faces, DecodedFaces):
        _warn_of_small_files(teacher, faces)
    if not teacher.foreign:
        return
    sample = _Sample(faces, LOOKED_AT)
    given = embed(teacher, sample)

    def tpr(rows: Tensor) -> float:
        return float(all_pairs_tpr_at_fpr(rows, sample.labels, [FPR])[0])

    genuine, impostor = count_pairs(sample.labels)
    if genuine < 20 or impostor < 1 / FPR:
        check_varies(given)
        return  # nothing can be measured

    def try_out(**options: Any) -> float:
        try:
            return tpr(embed(teacher.seen_as(**options), sample))
        except ValueError:  # NaN: not so, then
            return 0.0

    now = best = tpr(given)
    found: dict[str, Any] = {}
    for pixels in RANGES:
        other = teacher.seen_as(pixel_range=pixels)
        if other.pixels.same_levels(teacher.pixels):
            continue
        if _far_better(rate := try_out(pixel_range=pixels), now) and rate > best:
            best, found = rate, {"pixel_range": pixels}
    colour: Literal["rgb", "bgr"] = "rgb" if teacher.pixels.colour == "bgr" else "bgr"
    as_found = found or teacher.pixels.levels
    if _far_better(rate := try_out(colour=colour, **as_found), best):
        best, found = rate, found | {"colour": colour}
    if found:
        better = ", ".join(f"{name}={value!r}" for name, value in found.items())
        warnings.warn(
            f"{teacher.name} seems to see wrong pixels: on {len(sample)} training images its TPR "
            f"at FPR {FPR:.0e} is {now:.1%} as given, and {best:.1%} with {better}",
            stacklevel=2,
        )
    check_varies(given)


def _warn_of_small_files(teacher: Teacher, faces: DecodedFaces) -> None:
    """Say it if the files themselves hold no more pixels than a smaller net would take."""
    sample = torch.linspace(0, len(faces) - 1, min(9, len(faces))).long().tolist()
    sides = sorted(min(decode_image(faces.source(i), name=faces.name(i)).shape[1:]) for i in sample)
    if sides[len(sides) // 2] < int(teacher.input_size or 0):
        warnings.warn(
            f"{teacher.name} takes {teacher.input_size} pixels, and the images in the files are "
            f"{sides[len(sides) // 2]} pixels wide: they are enlarged, which shows it nothing new",
            stacklevel=3,
        )


def _far_better(rate: float, than: float) -> bool:
    return rate - than >= 0.05 and 1 - rate <= (1 - than) / 2


class _Sample:
    """Up to four images each of some people that have several, from all over a set."""

    def __init__(self, faces: FaceSet, most: int) -> None:
        self.faces, self.image_size = faces, faces.image_size
        order = faces.labels.argsort(stable=True)
        counts = faces.labels.bincount(minlength=faces.num_identities)
        starts = counts.cumsum(0) - counts
        several = (counts > 1).nonzero().flatten()
        if not len(several):
            several = counts.nonzero().flatten()
        takes = int(counts[several].clamp(max=4).float().mean().round())
        step = max(1, len(several) * takes // most)
        rows = [order[starts[p] : starts[p] + min(int(counts[p]), 4)] for p in several[::step]]
        self.index = torch.cat(rows)[:most]
        self.labels = faces.labels[self.index]

    @property
    def num_identities(self) -> int:
        return self.faces.num_identities

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, indices: Any) -> Tensor:
        return self.faces.batch(self.index[torch.as_tensor(indices)])
