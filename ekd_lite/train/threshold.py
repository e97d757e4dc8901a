r"""The cosine from which a teacher holds two images for one person, at a false-positive rate.

**With labels** it is the threshold of the impostor pairs, exact. Measure it on people whom the
teacher was not trained on: it tells its own apart too well, and its threshold there is too low (the
teacher that comes along: .57 on its own people, .67 on strangers, at 1e-4). Wrong labels spoil it
the other way: genuine pairs that count as impostors stand where the threshold is looked for.

**Without labels** all pairs are at hand, and nobody says which are genuine. Of all pairs let a
share of at most g be genuine (n images of every person among N images: g = (n - 1) / (N - 1)). The
share of all pairs with a cosine of t or more is

    F(t) = (1 - g') FPR(t) + g' TPR(t)        with the true share g' <= g, and 0 <= TPR <= 1,

so that FPR(t) = f asks for f (1 - g) <= F(t) <= f (1 - g) + g: the threshold lies between the
values that those two shares of *all* pairs exceed. At the upper one the FPR is f at most; at the
lower one it is f at least, and at most (f (1 - g) + g) / (1 - g), about f + g. The bounds say
little where g is not below f: 1,000 people with 24 images have g = 1e-3, ten times an f of 1e-4.
The lower one is right for a teacher that accepts nearly every genuine pair (TPR near 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ekd_lite.data import FaceSet
from ekd_lite.evaluate import count_pairs, embed
from ekd_lite.evaluate.scores import STEPS
from ekd_lite.evaluate.thresholds import impostor_thresholds
from ekd_lite.evaluate.tiles import sorted_rows
from ekd_lite.ops import are_numbers, false_accepts_at, generator_for, one_line
from ekd_lite.train.pixels import seen_by

if TYPE_CHECKING:
    from ekd_lite.train.teacher import Teacher

FPR = 1e-4  # of a run that names no threshold
MAX_ROWS = 16_384  # 134 million pairs: 13,000 of them above a rate of 1e-4
MIN_FALSE_ACCEPTS = 10  # fewer, and the threshold hangs on a handful of pairs


def threshold_at(teacher: Teacher | None, faces: Any, fpr: float, *, labels: Any = None) -> float:
    """The least cosine at which a teacher's false-positive rate is `fpr` or less.

    Args:
        teacher: what embeds the faces; None for rows.
        faces: a set of faces, or the teacher's rows of one, (N, D'). Of more than `MAX_ROWS` images
            as many are drawn at random.
        fpr: the rate f.
        labels: identities, (N,); a set of faces brings its own.

    Returns:
        t, to accept a pair if its cosine is t or more.

    Raises:
        ValueError: too few impostor pairs for the rate, or no labels.
    """
    _check_rate(fpr)
    rows, own = _rows(teacher, faces)
    labels = own if labels is None else labels
    if labels is None:
        raise ValueError(
            "rows alone do not say which pairs are impostors: give their labels, or ask for "
            "threshold_bounds, which needs none"
        )
    labels = _tensor(labels, "labels (N,)")
    if labels.shape != (len(rows),):
        raise ValueError(f"expected labels ({len(rows)},), got {tuple(labels.shape)}")
    drawn = _drawn(len(rows))
    return _exceeded(rows[drawn], labels[drawn], fpr, "impostor ")


def threshold_bounds(
    teacher: Teacher | None, faces: Any, fpr: float, *, genuine_share: float
) -> tuple[float, float]:
    """Bounds of `threshold_at` without any label: the least and the largest that it can be.

    Args:
        teacher: what embeds the faces; None for rows.
        faces: as in `threshold_at`; labels are not looked at.
        fpr: the rate f.
        genuine_share: g, an upper bound of the share of genuine pairs among all pairs, in [0, 1).

    Returns:
        low, high. Accepting from `high` on, the FPR is f or less; from `low` on it is f or more,
        but not above (f (1 - g) + g) / (1 - g).

    Raises:
        ValueError: too few pairs for the rate, or a share outside [0, 1).
    """
    if not are_numbers(genuine_share) or not 0 <= genuine_share < 1:
        raise ValueError(f"genuine_share must lie in [0, 1), got {genuine_share!r}")
    _check_rate(fpr)
    rows, _ = _rows(teacher, faces)
    rows = rows[_drawn(len(rows))]
    nobody_alike = torch.arange(len(rows))  # all pairs, then, count as impostors
    strict = fpr * (1 - genuine_share)
    low, high = (
        _exceeded(rows, nobody_alike, share, "") for share in (strict + genuine_share, strict)
    )
    return low, high


def training_threshold(rows: Tensor, faces: FaceSet, *, say: bool) -> float:
    """The threshold of a run that names none: of its own rows, by its own labels.

    Args:
        rows: the teacher's, of the training images, (N, D').
        faces: the training images.
        say: print it.
    """
    try:
        threshold = threshold_at(None, rows, FPR, labels=faces.labels)
    except ValueError as error:
        raise ValueError(
            f"the teacher's threshold cannot be measured on the training set ({error}): give "
            "teacher_threshold"
        ) from error
    if say:
        print(
            f"the teacher holds two images for one person from a cosine of {threshold:.3f} on: FPR "
            f"{FPR:.0e} over the training rows, by their labels. Of people whom it was trained on "
            "this is too low, with wrong labels too high: measure teacher_threshold on others "
            "(Teacher.threshold_at)"
        )
    return threshold


def _rows(teacher: Teacher | None, faces: Any) -> tuple[Tensor, Tensor | None]:
    """The rows of a set or of a table, and the labels that it brings."""
    if not hasattr(faces, "batch"):
        return _tensor(faces, "a set of faces or rows (N, D')"), None
    if teacher is None:
        raise ValueError("a set of faces needs a teacher to embed it")
    if teacher.rows is not None:
        raise ValueError("this teacher is a table of rows and cannot embed faces: give the rows")
    part = _Part(seen_by(teacher, faces))
    return embed(teacher, part), part.labels


def _tensor(values: Any, expected: str) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"expected {expected}: {one_line(error)}") from error


def _check_rate(fpr: Any) -> None:
    """Raise a ValueError unless it lies between 0 and 1."""
    if not are_numbers(fpr) or not 0 < fpr < 1:
        raise ValueError(f"the rate must lie between 0 and 1, got {fpr!r}")


def _drawn(count: int) -> Tensor:
    """At most `MAX_ROWS` of so many places, in order; always the same ones."""
    if count <= MAX_ROWS:
        return torch.arange(count)
    drawn = generator_for(0, 4, 0).choice(count, MAX_ROWS, replace=False)
    return torch.from_numpy(drawn).sort().values


def _exceeded(rows: Tensor, labels: Tensor, share: float, kind: str) -> float:
    """The least cosine that at most a share of the pairs of different labels reach."""
    _check_rate(share)
    fixed, labels, _ = sorted_rows(rows, labels)
    pairs = count_pairs(labels)[1]
    allowed = false_accepts_at(share, pairs)
    if allowed < MIN_FALSE_ACCEPTS:
        raise ValueError(
            f"{pairs:,} {kind}pairs cannot show a rate of {share:.3g}: it takes "
            f"{round(MIN_FALSE_ACCEPTS / share):,}; take more images, or a larger rate"
        )
    (last,) = impostor_thresholds(fixed, labels, [allowed]).tolist()
    return float(last + 1) / STEPS


class _Part:
    """The drawn images of a set, as a set."""

    def __init__(self, faces: Any) -> None:
        self.faces, self.index = faces, _drawn(len(faces))
        self.labels, self.image_size = faces.labels[self.index], faces.image_size

    @property
    def num_identities(self) -> int:
        return int(self.faces.num_identities)

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, indices: Any) -> Tensor:
        images: Tensor = self.faces.batch(self.index[torch.as_tensor(indices)])
        return images
