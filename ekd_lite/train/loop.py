"""The loop around the step: checks first, then batches, log, checkpoints, the finished model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from ekd_lite.data import FaceSet
from ekd_lite.files import remove_leftovers, write_atomically
from ekd_lite.train.batches import cache_teacher, iter_batches, prepare
from ekd_lite.train.checkpoint import load_checkpoint, save_checkpoint
from ekd_lite.train.checks import check_faces, load_teacher, pick_device
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.log import JsonLines
from ekd_lite.train.model_file import Model, save_model
from ekd_lite.train.signals import Stopped, StopSignals
from ekd_lite.train.state import TrainState, build_state
from ekd_lite.train.step import train_step

OnStep = Callable[[TrainState, dict[str, float]], None]


def fit(
    config: TrainConfig,
    faces: FaceSet,
    out: Path,
    *,
    teacher_embeddings: Sequence[Tensor] | None = None,
    progress: bool = True,
    on_step: OnStep | None = None,
) -> Path:
    """Train one net into a folder, going on where an earlier call was stopped.

    The folder holds config.json, log.jsonl, checkpoint.pt (and the one before it) and, at the end,
    model.safetensors. Ctrl-C and SIGTERM finish the step, save a checkpoint and exit (130, 143).

    Args:
        config: what to train.
        faces: the training images.
        out: the run's folder.
        teacher_embeddings: what `cache_teacher` returned for these faces, to share it among runs;
            made here if left out.
        progress: show a bar on a terminal.
        on_step: called after every step with the state and the parts of the loss.

    Returns:
        Path of the finished model file.

    Raises:
        FileNotFoundError, ValueError: no teacher, or one that does not fit; images, labels or batch
            sizes that cannot work; a checkpoint of another configuration. All before the first
            step.
        FloatingPointError: the loss stopped being finite.
    """
    device = pick_device(config.device)
    sampler = check_faces(config, faces)
    teacher = load_teacher(config, faces, device=device)
    finished = out / "model.safetensors"
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    state = build_state(config, faces.num_identities, teacher, device)
    saved = load_checkpoint(out / "checkpoint.pt", device=device)
    if saved is not None:
        state.load_state_dict(saved)
    write_atomically(out / "config.json", config.to_json().encode())
    if finished.exists() and state.step == config.steps:
        return finished
    cache = teacher_embeddings if teacher is not None else None
    if cache is None and teacher is not None and config.cache_teacher:
        cache = cache_teacher(teacher, faces, flip=config.flip, progress=progress)
    state.backbone.train()
    sampler.step = state.step
    batches = iter_batches(config, faces, sampler)
    with (
        StopSignals() as signals,
        JsonLines(out / "log.jsonl", step=state.step) as log,
        tqdm(
            total=config.steps,
            initial=state.step,
            desc=out.name,
            disable=None if progress else True,
        ) as bar,
    ):
        while state.step < config.steps:
            start = time.perf_counter()
            batch = prepare(state, *next(batches), cache)
            metrics = {name: float(value) for name, value in train_step(state, batch).items()}
            state.seconds += time.perf_counter() - start
            bar.update()
            if state.step % config.log_every == 0 or state.step == config.steps:
                log.write({"step": state.step, **metrics, **distiller_stats(state)})
                bar.set_postfix(loss=f"{metrics['loss']:.2f}")
            if on_step is not None:
                on_step(state, metrics)
            stop = signals.caught  # read once: a signal after this line stops the next step
            is_last = state.step == config.steps or stop is not None
            if is_last or state.step % config.checkpoint_every == 0:
                save_checkpoint(state.state_dict(), out / "checkpoint.pt")
            if stop is not None:
                raise Stopped(128 + stop)
    save_model(finished, describe(state, faces.num_identities))
    return finished


def describe(state: TrainState, num_identities: int) -> Model:
    """The trained net with what `load_model` needs to build it again."""
    config = state.config
    info: dict[str, Any] = {
        name: getattr(config, name)
        for name in ("backbone", "embedding_dim", "image_size", "head", "scale", "margin", "method")
    }
    info |= {"num_identities": num_identities, "steps": state.step, "seed": config.seed}
    info["train_seconds"] = round(state.seconds, 1)
    return Model(state.backbone, state.head, info)


def distiller_stats(state: TrainState) -> dict[str, float]:
    """What the losses tell of the last batch, e.g. {"ekd_critical_share": 0.03}."""
    return {
        f"{name}_{key}": float(value)
        for name, module in state.distillers.items()
        for key, value in getattr(module, "stats", {}).items()
    }
