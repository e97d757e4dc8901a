"""Distillation in several runs, or without a set: what papers do around a loss."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.data import FaceSet
from ekd_lite.data.latents import NUM_LATENTS, faces_from_latents
from ekd_lite.distill import DISTILLERS, parse_method
from ekd_lite.heads import ArcFace
from ekd_lite.ops import check_tensors, generator_for, unit_rows
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.distributed import pick_device
from ekd_lite.train.loop import finished_model, fit
from ekd_lite.train.model_file import Model
from ekd_lite.train.state import build_state
from ekd_lite.train.step import Batch, train_step
from ekd_lite.train.teacher import as_teacher
from ekd_lite.train.teacher_fit import asks_for_people, probe

AT_ONCE = 1024  # rows of a step of `fuse_teachers`


def bend_teacher(
    teacher: TrainConfig,
    student: TrainConfig,
    faces: FaceSet,
    out: str | Path,
    *,
    pull: str = "fitnet",
    progress: bool = True,
) -> Path:
    """Train a teacher with a pull towards a small net, and then a student under it.

    Three runs of `fit`, each in a folder of `out` and gone on with where it was stopped:

    1. "small": the student's net alone, under its identity loss.
    2. "teacher": the large net, under its identity loss and `pull` towards the small net.
    3. "student": the student as its configuration says, under the teacher of step 2.

    With pull="fitnet" this is ReFO's idea (Li et al., CVPR 2023): a teacher whose embeddings a
    small net is able to make. In the paper the student has no identity loss (identity_weight=0) and
    fitnet. With pull="margin" it is SH-KD's (Ben-Baruch et al., arXiv 2201.06945): the teacher is
    trained on the small net's frozen classifier. The weight of ReFO's pull is not published; ours
    is the default of the method. The paper's ReFO+, with a deeper proxy in step 1, is not here.

    Args:
        teacher: of step 2; its `method` and `teacher` are set here.
        student: of step 3; `teacher` is set here. Step 1 is the same without method.
        faces: the training images.
        out: folder of the three runs.
        pull: the method of step 2, such as "fitnet:8".
        progress: show bars on a terminal.

    Returns:
        Path of the student's finished file.

    Raises:
        ValueError: a student without method, or what `fit` refuses.
    """
    if student.method == "none":
        raise ValueError("the student's method is 'none': nothing would come from the bent teacher")
    parse_method(pull)  # before the first run, not after it
    out = Path(out)
    alone: dict[str, Any] = {
        "method": "none",
        "teacher": None,
        "identity_weight": student.identity_weight or 1.0,
    }
    small = fit(dataclasses.replace(student, **alone), faces, out / "small", progress=progress)
    with warnings.catch_warnings():
        # Here the teacher shall be the smaller one.
        warnings.filterwarnings("ignore", message=".*probably a student's file")
        bent = fit(
            dataclasses.replace(teacher, method=pull, teacher=str(small)),
            faces,
            out / "teacher",
            progress=progress,
        )
    last = dataclasses.replace(student, teacher=str(bent))
    return fit(last, faces, out / "student", progress=progress)


def fuse_teachers(
    rows: Sequence[Tensor],
    labels: Tensor | None = None,
    *,
    dim: int,
    steps: int = 500,
    seed: int = 0,
    scale: float = 28.0,
    margin: float = 0.4,
    learning_rate: float = 1e-3,
) -> Tensor:
    r"""One table of teacher's rows from several, by a linear map under an ArcFace head.

    With u_i the unit rows of all teachers side by side, the fused rows are A u_i made unit, and A
    is trained with a head of its own on the labels (MST-KD, Caldeira et al., ECCV workshops 2024;
    there with ElasticArcFace). A starts at the `dim` principal axes of the rows, so that

        steps=0                  is PCA (without taking off the mean), which needs no labels;
        steps=0, dim >= sum D_k  keeps every cosine of the concatenation.

    These two are the baselines: a trained map should beat them before anybody calls it a fusion.

    Args:
        rows: embeddings of the same N images, (N, D_k) each, not necessarily normalised.
        labels: identities, (N,) int64 in 0..C-1; None only with steps=0.
        dim: width of the result.
        steps: of Adam, on batches of 1024 images; 0 trains nothing.
        seed: of batches and head.
        scale: of the head.
        margin: of the head.
        learning_rate: falls to zero as a cosine.

    Returns:
        Unit rows (N, dim) for `Teacher.from_rows`, float32, on the device of the first table.

    Raises:
        ValueError: no tables, tables of other numbers of images, NaN, or bad labels.

    Example:
        >>> fuse_teachers([torch.randn(8, 3), torch.randn(8, 2)], dim=4, steps=0).shape
        torch.Size([8, 4])
    """
    joined = _side_by_side(rows)
    if dim < 1 or steps < 0:
        raise ValueError(f"expected dim >= 1 and steps >= 0, got {dim} and {steps}")
    # Principal axes of the uncentred rows: cosines are taken from the origin.
    axes = torch.linalg.eigh(joined.double().T @ joined.double()).eigenvectors.flip(1)
    start = torch.zeros(joined.shape[1], dim, device=joined.device)
    start[:, : axes.shape[1]] = axes[:, :dim].float()
    if not steps:
        return unit_rows(joined @ start)
    if labels is None:
        raise ValueError("a trained map needs labels; steps=0 is PCA, which needs none")
    check_tensors(labels=labels)
    num_identities = int(labels.max()) + 1
    labels = labels.to(joined.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = ArcFace(dim, num_identities, scale=scale, margin=margin).to(joined.device)
    linear = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([linear, *head.parameters()], lr=learning_rate)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        index = torch.from_numpy(generator_for(seed, 0, step).integers(0, len(joined), AT_ONCE))
        index = index.to(joined.device)
        loss = F.cross_entropy(head(joined[index] @ linear, labels[index]), labels[index])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return unit_rows(joined @ linear.detach())


def _side_by_side(rows: Sequence[Tensor]) -> Tensor:
    """The unit rows of all tables in one, (N, D_1 + D_2 + ...)."""
    if not len(rows):
        raise ValueError("there is no table of embeddings to fuse")
    for k, table in enumerate(rows):
        check_tensors(**{f"table_{k}": table})
        if table.ndim != 2 or len(table) != len(rows[0]) or not len(table):
            raise ValueError(
                f"expected tables (N, D_k) of the same images, got {[tuple(t.shape) for t in rows]}"
            )
        if not table.isfinite().all():
            raise ValueError(f"table {k} holds NaN or infinity")
    return torch.cat([unit_rows(table.detach().float()).to(rows[0].device) for table in rows], 1)


def distil_fresh_faces(
    config: TrainConfig, teacher: Any, *, reach: float = 1.0, **look: float
) -> Model:
    r"""Distil on procedural people nobody has met before, and on look-alikes of them; no set.

    For every other step new people are drawn, as vectors w of standard normal numbers. After the
    step each is moved, the farther the better the student already knows it, and the next step is on
    pictures of the moved,

        a = reach (cos(s, t) + 1) / 2,        w' = sqrt(1 - a^2) w + a e,    e standard normal,

    with s and t the embeddings of student and teacher (SynthDistill, Shahreza et al., IJCB 2023).
    The paper adds, w' = w + a e; mixing keeps w' as likely a person as w. With reach 0 the second
    step sees the same people in other pictures, which is plain distillation on fresh people.

    Args:
        config: of the student. `identity_weight` must be 0, and the method one that asks neither
            for labels nor for the teacher's people, such as "fitnet" or "qud". `steps` counts both
            kinds; a batch has general + identities * images_per_identity images.
        teacher: whatever `as_teacher` takes but a table of rows, which cannot embed new faces.
        reach: c of the paper, 0..1.
        look: `identity_spread` and `nuisance_strength` of `faces_from_latents`.

    Returns:
        The student (`save_model` writes it). There are no checkpoints: runs take minutes.

    Raises:
        ValueError: a configuration, a teacher or a reach that cannot be.
    """
    teacher = as_teacher(teacher)
    used = [DISTILLERS[name] for name in parse_method(config.method)]
    asking = [
        method.needs_labels
        or asks_for_people(method)
        or (method.needs_prototypes and teacher.head is None)
        or (method.needs_threshold and config.teacher_threshold is None)
        for method in used
    ]
    if config.identity_weight > 0 or any(asking) or not used:
        raise ValueError(
            "fresh faces have no labels: expected identity_weight 0 and a method that needs none, "
            "nor prototypes that the teacher has not, nor a threshold that would be measured, "
            f"got {config.identity_weight} and {config.method!r}"
        )
    if not 0 <= reach <= 1:
        raise ValueError(f"reach must lie in 0..1, got {reach}")
    if teacher.rows is not None:
        raise ValueError("the teacher is a table of rows: it cannot embed new faces")
    if teacher.width is None:
        probe(teacher, config.image_size)
    if teacher.width != config.embedding_dim:
        raise ValueError(
            f"the student is compared with its teacher: expected embedding_dim {teacher.width}, "
            f"the teacher's width, got {config.embedding_dim}"
        )
    device = pick_device(config.device)
    state = build_state(config, 1, teacher.to(device).eval(), device)
    count = config.general + config.identities * config.images_per_identity
    labels = torch.zeros(count, dtype=torch.int64, device=device)

    def photograph(people: Tensor) -> tuple[Batch, Tensor]:
        images = faces_from_latents(
            people, state.step, image_size=config.image_size, device=device, **look
        )
        with torch.no_grad():
            rows = teacher(images).float()
        return Batch(images, labels, rows), rows

    state.objective.train()
    while state.step < config.steps:
        generator = generator_for(config.seed, 3, state.step)
        people, noise = torch.from_numpy(generator.standard_normal((2, count, NUM_LATENTS)))
        batch, rows = photograph(people)
        train_step(state, batch)
        if state.step == config.steps:
            break
        state.backbone.eval()
        with torch.no_grad():
            known = F.cosine_similarity(state.backbone(batch.images), rows)
        state.backbone.train()
        a = reach * (known.cpu().double()[:, None] + 1) / 2
        train_step(state, photograph((1 - a * a).sqrt() * people + a * noise)[0])
    state.backbone.eval()
    return finished_model(state, 1)
