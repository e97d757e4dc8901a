"""The loop around the step: checks first, then batches, log, checkpoints, the finished model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ekd_lite.data import FaceSet, IdentityBalancedSampler
from ekd_lite.distill import DISTILLERS, parse_method
from ekd_lite.evaluate.embed import embed
from ekd_lite.files import remove_leftovers, write_atomically
from ekd_lite.train.checkpoint import load_checkpoint, save_checkpoint
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.log import JsonLines
from ekd_lite.train.model_file import Model, load_model, save_model
from ekd_lite.train.signals import Stopped, StopSignals
from ekd_lite.train.state import TrainState, build_state
from ekd_lite.train.step import Batch, train_step

MAX_LOOKED_AT = 4096  # images, before training starts
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


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but torch sees no CUDA GPU")
    return device


def check_faces(config: TrainConfig, faces: FaceSet) -> IdentityBalancedSampler:
    """Check the set against the configuration and build the sampler."""
    if faces.image_size != config.image_size:
        raise ValueError(
            f"the images are {faces.image_size} pixels wide, the configuration says "
            f"{config.image_size}"
        )
    if faces.num_identities < 2:
        raise ValueError(
            f"the set holds {faces.num_identities} identity: telling faces apart takes two or more"
        )
    labels = faces.labels
    if labels.dtype != torch.int64 or labels.shape != (len(faces),):
        raise ValueError(f"expected {len(faces)} int64 labels, got {labels.dtype} {labels.shape}")
    bad = ((labels < 0) | (labels >= faces.num_identities)).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"label {int(labels[bad[0]])} of image {int(bad[0])} is not in "
            f"0..{faces.num_identities - 1}"
        )
    # All images of a small set, some thousands of a large one; training looks at every batch.
    sample = torch.arange(0, len(faces), max(1, len(faces) // MAX_LOOKED_AT))
    for part in torch.split(sample, 256):
        check_pixels(faces.batch(part), part)
    return IdentityBalancedSampler(
        labels,
        general=config.general,
        identities=config.identities,
        images_per_identity=config.images_per_identity,
        num_steps=config.steps,
        seed=config.seed,
    )


def check_pixels(images: Tensor, index: Tensor) -> None:
    """Raise a ValueError that names the first image with a pixel that is no number."""
    bad = (~images.isfinite().flatten(1).all(dim=1)).nonzero().flatten()
    if len(bad):
        raise ValueError(f"image {int(index[bad[0]])} of the set holds NaN or infinite pixels")


def load_teacher(config: TrainConfig, faces: FaceSet, *, device: torch.device) -> Model | None:
    """Load the teacher that the method needs, and refuse one that cannot be it."""
    if config.method == "none":
        return None
    teacher = load_model(str(config.teacher), device=device)
    teacher.backbone.requires_grad_(False)
    teacher.head.requires_grad_(False)
    problems = []
    if teacher.info["image_size"] != config.image_size:
        problems.append(f"it takes {teacher.info['image_size']} pixels, not {config.image_size}")
    needs = {DISTILLERS[name].needs for name in parse_method(config.method)}
    if "logits" in needs and teacher.info["num_identities"] != faces.num_identities:
        problems.append(
            f"it knows {teacher.info['num_identities']} identities, the set has "
            f"{faces.num_identities}, and {config.method!r} compares their logits one by one"
        )
    student = build_state(config, 2, None, torch.device("cpu")).backbone
    size = sum(p.numel() for p in student.parameters())
    if teacher.num_parameters <= size:
        problems.append(
            f"it has {teacher.num_parameters:,} parameters, no more than the student's {size:,}: "
            "probably a student's file"
        )
    if problems:
        raise ValueError(f"{config.teacher} cannot be the teacher: " + "; ".join(problems))
    return teacher


def cache_teacher(
    teacher: Model, faces: FaceSet, *, flip: bool, progress: bool = True
) -> list[Tensor]:
    """The teacher's embeddings of every image, and of every mirrored image if runs will flip.

    Valid as long as training changes images in no other way.
    """
    label = "teacher" if progress else None
    views = (False, True) if flip else (False,)
    return [embed(teacher.backbone, faces, mirrored=view, progress=label) for view in views]


class _Indexed(Dataset[Any]):
    """A face set as torch's loader wants it, one whole batch a call."""

    def __init__(self, faces: FaceSet) -> None:
        self.faces = faces

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        index = torch.tensor(indices)
        return self.faces.batch(index), index


def _as_it_is(batch: Any) -> Any:
    return batch


def iter_batches(
    config: TrainConfig, faces: FaceSet, sampler: IdentityBalancedSampler
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Images (N, 3, H, H), labels (N,) and indices (N,), from the sampler's step on."""
    loader = DataLoader(
        _Indexed(faces),
        batch_sampler=sampler,
        num_workers=config.workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # else the loader draws from the generator of the dropout
        timeout=120 if config.workers else 0,
    )
    for images, index in loader:
        check_pixels(images, index)
        yield images, faces.labels[index], index


def prepare(
    state: TrainState,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    cache: Sequence[Tensor] | None,
) -> Batch:
    """Move a batch to the nets' device, mirror half of it if wanted, add the teacher's view."""
    config = state.config
    device = state.head.prototypes.device
    images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    mirrored = torch.zeros(len(index), dtype=torch.bool)
    if config.flip:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
        mirrored = torch.rand(len(index), generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None].to(device), images.flip(-1), images)
    teacher_embeddings = None
    if cache is not None:
        rows = [view[index] for view in cache]
        teacher_embeddings = torch.where(mirrored[:, None], rows[-1], rows[0]).to(device)
    elif state.teacher is not None:
        with torch.no_grad():
            teacher_embeddings = state.teacher.backbone(images)
    return Batch(images, labels.to(device, non_blocking=True), teacher_embeddings)


def distiller_stats(state: TrainState) -> dict[str, float]:
    """What the losses tell of the last batch, e.g. {"ekd_critical_share": 0.03}."""
    return {
        f"{name}_{key}": float(value)
        for name, module in state.distillers.items()
        for key, value in getattr(module, "stats", {}).items()
    }
