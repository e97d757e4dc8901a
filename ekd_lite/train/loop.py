"""The loop around the step: checks first, then batches, log, checkpoints, the finished model."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ekd_lite.data import FaceSet
from ekd_lite.data.faceset import people_of
from ekd_lite.distill import DISTILLERS, Distiller, parse_method
from ekd_lite.files import write_atomically
from ekd_lite.parallel import rank, world_size
from ekd_lite.train.batches import build_sampler, prepare, read_batches
from ekd_lite.train.checkpoint import read_checkpoint, save_checkpoint
from ekd_lite.train.checks import check_faces
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.distributed import agree, lock_folder, pick_device, process_group
from ekd_lite.train.log import RunLog
from ekd_lite.train.model_file import Model, save_model
from ekd_lite.train.optim import learning_rate_at
from ekd_lite.train.origin import check_ranks, faces_origin, is_finished, tensors_digest
from ekd_lite.train.pixels import seen_by
from ekd_lite.train.signals import Stopped, StopSignals
from ekd_lite.train.start import Start, start_from
from ekd_lite.train.state import TrainState, build_state, distiller_stats
from ekd_lite.train.step import BadBatchError, Batch, train_step
from ekd_lite.train.student import build_student, check_apart
from ekd_lite.train.teacher import VIEWS
from ekd_lite.train.teacher_cache import view_origin
from ekd_lite.train.teacher_fit import class_means, load_teacher, needs_means
from ekd_lite.train.teacher_rows import given_rows, make_rows
from ekd_lite.train.teacher_view import report_teacher, suspect_input
from ekd_lite.train.threshold import training_threshold

OnStep = Callable[[TrainState, dict[str, float]], None]


def fit(
    config: TrainConfig,
    faces: FaceSet,
    out: str | Path,
    *,
    teacher: Any = None,
    teacher_embeddings: Sequence[Tensor] | None = None,
    student: nn.Module | Callable[[], nn.Module] | None = None,
    init_from: Any = None,
    methods: Mapping[str, Distiller] = DISTILLERS,
    progress: bool = True,
    on_step: OnStep | None = None,
) -> Path:
    """Train one net into a folder, going on where an earlier call was stopped.

    The folder holds config.json, log.jsonl, checkpoint.pt (and the one before it) and, at the end,
    model.safetensors. Ctrl-C and SIGTERM finish the step, save a checkpoint and exit (130, 143).
    Under torchrun every process calls this; they train one net, and the first of them writes.

    Args:
        config: what to train; batch sizes are those of one process.
        faces: the training images.
        out: the run's folder.
        teacher: what teaches, if the configuration names no file: a `Teacher`, a net (which takes
            these images as they are), its embeddings of all images (N, D') or a file of any kind
            that `Teacher.from_file` reads. Its class means stand for prototypes that it lacks.
        teacher_embeddings: what `cache_teacher` returned for these faces, to share it among runs;
            made here if left out. One table (N, D'), or two: of the images and, if `config.flip`
            mirrors them, of the mirrored images; tensors, arrays or lists.
        student: a net of your own in place of `config.backbone`: an nn.Module that maps images
            (N, 3, H, H) in [-1, 1] to embeddings (N, D), or a function without arguments that makes
            one after the seed is set. Its class and width replace `backbone` and `embedding_dim` in
            what the run writes. It is trained in place; `load_model(path, student=net)` reads it.
        init_from: weights to start from: a run's folder or model file, a published checkpoint, a
            state dict, a module. What fits by name and shape is copied into the backbone, the rest
            is named in the log (`ekd_lite.train.start`); the head starts anew.
        methods: what the names in `config.method` stand for, to train with a loss of your own:
            {**DISTILLERS, "fitnet": Distiller(build=...)}.
        progress: show a bar on a terminal.
        on_step: called after every step with the state and the parts of the loss.

    Returns:
        Path of the finished model file.

    Raises:
        FileNotFoundError, ValueError: no teacher, or one that does not fit; a student that is none,
            or no weights for it in `init_from`; images, labels or batch sizes that cannot work; a
            checkpoint or a finished model of another configuration, other faces or another teacher;
            a folder in which another process trains. All before the first step.
        FloatingPointError: the loss or the gradient stopped being finite.
        LoaderError: an image cannot be read.
        ConnectionError: another process of the run has ended or does not answer.

    Example:
        >>> path = fit(config, faces, "runs/a", student=MyNet)  # doctest: +SKIP
    """
    device = pick_device(config.device)
    with process_group(device, timeout=config.rank_timeout):
        # In a function of its own: nothing may hold the group when it is destroyed.
        given = _Given(teacher, teacher_embeddings, student, init_from)
        return _fit(config, faces, Path(out), device, given, methods, progress, on_step)


@dataclass(frozen=True)
class _Given:
    """What `fit` was given beside configuration and faces."""

    teacher: Any
    rows: Sequence[Tensor] | None
    student: nn.Module | Callable[[], nn.Module] | None
    init_from: Any


def _fit(
    config: TrainConfig,
    faces: FaceSet,
    out: Path,
    device: torch.device,
    given: _Given,
    methods: Mapping[str, Distiller],
    progress: bool,
    on_step: OnStep | None,
) -> Path:
    """`fit`, as one of the processes of a group."""
    with contextlib.ExitStack() as stack:
        lock_folder(out, stack)
        check_faces(config, faces)
        sampler = build_sampler(config, faces.labels) if config.sampler == "identities" else None
        origin = faces_origin(faces)
        student = build_student(config, given.student, device=device)
        config, start = student.config, None
        if given.init_from is not None:
            start = start_from(student.net, given.init_from)
        teacher = load_teacher(
            config,
            faces,
            device=device,
            given=given.teacher,
            methods=methods,
            origin=origin,
            student=student.net,
        )
        origin |= student.origin() | ({} if start is None else {"init_from": start.digest})
        used = [methods[name] for name in parse_method(config.method)]
        has_gallery = any(method.needs_gallery for method in used)
        measures = config.teacher_threshold is None and any(m.needs_threshold for m in used)
        early = has_gallery or measures or sampler is None  # rows are asked for
        cache, seen = None, faces
        if teacher is not None:
            check_apart(student.net, teacher)
            makes = early or config.cache_teacher or needs_means(teacher, config, methods)
            seen = seen_by(teacher, faces) if makes and given.rows is None else faces
            origin |= teacher.origin() | view_origin(teacher, seen, faces)
            cache = given_rows(teacher, given.rows, config, faces)
            if given.rows is not None and cache is not None:
                origin["teacher_embeddings"] = tensors_digest(zip(VIEWS, cache, strict=False))
        check_ranks(config, origin)
        if teacher is not None and needs_means(teacher, config, methods):
            cache = cache or make_rows(teacher, config, faces, seen, progress)
            means = class_means(cache[0], faces.labels, faces.num_identities)
            teacher = teacher.with_head(means.to(device), scale=config.scale)
            if progress and rank() == 0:
                print("the teacher's prototypes are the unit means of its rows by identity")
        threshold = None
        if teacher is not None and early:
            cache = cache or make_rows(teacher, config, faces, seen, progress)
        if cache is not None and measures:
            threshold = training_threshold(cache[0], faces, say=progress and rank() == 0)
            origin["teacher_threshold"] = f"{threshold:.6f}"
        if sampler is None:
            rows = None if cache is None else cache[0]
            sampler = build_sampler(config, faces.labels, rows, device=device)
        state = build_state(
            config,
            faces.num_identities,
            teacher,
            device,
            methods=methods,
            student=student,
            threshold=threshold,
            gallery=(cache[0], faces.labels) if cache is not None and has_gallery else None,
        )
        state.origin, state.people = origin, people_of(faces)
        saved = read_checkpoint(out / "checkpoint.pt") if rank() == 0 else None
        finished = out / "model.safetensors"
        if is_finished(finished, saved, config, origin):
            return finished
        state.resume(saved)
        if rank() == 0:
            write_atomically(out / "config.json", config.to_json().encode())
        if agree(int(finished.exists())) and state.step == config.steps:
            return finished
        if cache is None and teacher is not None:
            if config.cache_teacher:
                cache = make_rows(teacher, config, faces, seen, progress)
            else:
                suspect_input(teacher, seen)
        if teacher is not None and progress and rank() == 0:
            print(report_teacher(teacher, faces, seen, cache), flush=True)
        sampler.step = state.step * config.accumulate
        with read_batches(config, faces, sampler, device=device) as batches:
            _train(state, batches, cache, out, progress, on_step, start)
        model = finished_model(state, faces.num_identities)
        if rank() == 0:
            save_model(finished, model)
        return finished


def _train(
    state: TrainState,
    batches: Iterator[tuple[Tensor, Tensor, Tensor]],
    cache: Sequence[Tensor] | None,
    out: Path,
    progress: bool,
    on_step: OnStep | None,
    start: Start | None,
) -> None:
    """All steps that are left."""
    config = state.config
    if start is not None and progress and rank() == 0 and not state.step:
        print(start)
    batch_size = config.general + config.identities * config.images_per_identity
    state.objective.train()
    with (
        StopSignals() as signals,
        RunLog(
            out,
            total=config.steps,
            step=state.step,
            enabled=rank() == 0,
            progress=progress,
            batch_size=batch_size * config.accumulate * world_size(),
            tensorboard=config.tensorboard,
            opening=None if start is None else start.record(),
        ) as log,
    ):
        while state.step < config.steps:
            begun = time.perf_counter()
            first = state.step * config.accumulate
            group = [
                prepare(state, *next(batches), cache, position=first + i)
                for i in range(config.accumulate)
            ]
            metrics = _step(state, group, out)
            state.seconds += time.perf_counter() - begun
            log.advance(state.step)
            if metrics and (state.step % config.log_every == 0 or state.step == config.steps):
                live = {"learning_rate": learning_rate_at(state.step - 1, config)}
                log.write({"step": state.step, **metrics, **distiller_stats(state)}, live=live)
            if metrics and on_step is not None:
                on_step(state, metrics)
            # Read once: a signal after this line stops the next step.
            stop = agree(signals.caught or 0)
            is_last = state.step == config.steps or stop
            if is_last or state.step % config.checkpoint_every == 0:
                save(state, out)
            if stop:
                raise Stopped(128 + stop)


def _step(state: TrainState, group: list[Batch], out: Path) -> dict[str, float]:
    """One step; one that is not finite is written down and, so far as allowed, left out."""
    try:
        return {name: float(value) for name, value in train_step(state, *group).items()}
    except BadBatchError as error:
        if rank() == 0:
            with (out / "bad_batches.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(error.record) + "\n")
        state.bad_steps += 1
        if state.bad_steps > state.config.max_bad_steps:
            raise
        state.step += 1
        return {}


def save(state: TrainState, out: Path) -> None:
    """Save a checkpoint; all processes must call it, the first one writes."""
    content = state.state_dict()
    if rank() == 0:
        save_checkpoint(content, out / "checkpoint.pt")


def finished_model(state: TrainState, num_identities: int) -> Model:
    """The trained net with what `load_model` needs to build it again."""
    config = state.config
    info: dict[str, Any] = {
        name: getattr(config, name)
        for name in ("backbone", "embedding_dim", "image_size", "head", "scale", "margin", "method")
    }
    info |= {"num_identities": num_identities, "steps": state.step, "seed": config.seed}
    info["train_seconds"] = round(state.seconds, 1)
    return Model(state.backbone, state.full_head(), info, state.people, state.origin)
