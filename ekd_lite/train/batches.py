"""From indices to what a step takes: images read ahead, mirrored, with the teacher's embeddings."""

from __future__ import annotations

import contextlib
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ekd_lite.data import FaceSet, IdentityBalancedSampler, NeighbourSampler, capped_workers
from ekd_lite.data.ahead import as_floats, read_ahead, read_bytes
from ekd_lite.data.augment import augment
from ekd_lite.data.faceset import check_pixels
from ekd_lite.data.sampler import BatchStream
from ekd_lite.ops import generator_for
from ekd_lite.parallel import rank, world_size
from ekd_lite.train.checks import batches_without_labels
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.objective import HALF
from ekd_lite.train.state import TrainState
from ekd_lite.train.step import Batch


class LoaderError(RuntimeError):
    """A batch could not be read: an image is broken, or a reading process died or hangs."""


class _Indexed(Dataset[Any]):
    """A face set as torch's loader wants it, one whole batch a call.

    Bytes go to another process, or to a GPU, as bytes: a quarter of the floats (`prepare` makes
    these of them).

    Attributes:
        reading: the indices that each reading process is at, (workers, N), in shared memory: what
            is left of a process that died.
    """

    def __init__(self, faces: FaceSet, workers: int, batch_size: int, *, far: bool) -> None:
        self.faces = faces
        self.far = far
        self.reading = torch.full((max(workers, 1), batch_size), -1)
        self.reading.share_memory_()  # type: ignore[no-untyped-call]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        index = torch.tensor(indices)
        worker = get_worker_info()
        own = self.reading[worker.id if worker else 0]
        own.copy_(index)
        try:
            images = self._read(index)
        except Exception as error:
            raise self._name_image(indices, error) from error
        own.fill_(-1)
        return images, index

    def _read(self, index: Tensor) -> Tensor:
        return read_bytes(self.faces, index) if self.far else self.faces.batch(index)

    def _name_image(self, indices: list[int], error: Exception) -> LoaderError:
        """Read the batch one by one to find who it was."""
        for i in indices:
            try:
                self._read(torch.tensor([i]))
            except Exception as own:
                return LoaderError(f"image {i} cannot be read: {type(own).__name__}: {own}")
        return LoaderError(f"images {indices} cannot be read: {type(error).__name__}: {error}")


def _as_it_is(batch: Any) -> Any:
    return batch


def build_sampler(
    config: TrainConfig,
    labels: Tensor,
    rows: Tensor | None = None,
    *,
    device: torch.device | str = "cpu",
) -> BatchStream:
    """The batches of a run: this process's share of those that seed and labels, or rows, decide.

    Args:
        config: of the run.
        labels: identities, (N,); not looked at with the sampler "neighbours".
        rows: the teacher's embeddings, (N, D'), for that sampler.
        device: where it compares them.

    Raises:
        ValueError: a set too small for one batch; where no labels are needed, it names the options
            of batches without.
    """
    options: dict[str, Any] = {
        "general": config.general,
        "num_steps": config.steps * config.accumulate,
        "seed": config.seed,
        "rank": rank(),
        "world_size": world_size(),
    }
    each = config.images_per_identity
    if config.sampler == "identities":
        options |= {"identities": config.identities, "images_per_identity": each}
        try:
            return IdentityBalancedSampler(labels, **options)
        except ValueError as error:
            raise ValueError(f"{error}{batches_without_labels(config, len(labels))}") from error
    threshold = config.teacher_threshold
    assert rows is not None and threshold is not None  # the configuration has seen to it
    options |= {"anchors": config.identities, "images_per_anchor": each, "device": device}
    return NeighbourSampler(rows, threshold, **options)


@contextlib.contextmanager
def read_batches(
    config: TrainConfig,
    faces: FaceSet,
    sampler: BatchStream,
    *,
    device: torch.device | str = "cpu",
) -> Iterator[Iterator[tuple[Tensor, Tensor, Tensor]]]:
    """Images (N, 3, H, H), labels (N,) and indices (N,), from the sampler's step on.

    Images are bytes or floats, see `prepare`. The reading processes live as long as the block:
    the loader is gone through once, so that there is nothing for `persistent_workers` to keep.
    Without any, a thread reads ahead where the set decodes files (`read_ahead`).

    Args:
        config: of the run.
        faces: the training images.
        sampler: which images.
        device: where they will go; for a GPU they come in memory that is pinned.

    Raises:
        LoaderError: an image cannot be read, or a reading process died or did not answer within
            `config.loader_timeout` seconds; names the images. Torch notices a death at any time,
            not only when the next batch is asked for.
    """
    workers = capped_workers(config.workers, least=0)
    is_gpu = torch.device(device).type == "cuda"
    size = sampler.general + sampler.balanced
    source = _Indexed(faces, workers, size, far=workers > 0 or is_gpu)
    with warnings.catch_warnings():
        if workers < config.workers:  # it is said already
            warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader = DataLoader(
            source,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=is_gpu,
            generator=torch.Generator(),  # else the loader draws from the generator of the dropout
            timeout=config.loader_timeout if workers else 0,
            worker_init_fn=_take_orders_from_parent,
        )
    try:
        iterator = iter(loader)
        try:
            with contextlib.closing(read_ahead(iterator, faces)) as ahead:
                yield _batches(iterator if workers else ahead, source, config)
        finally:
            _end(iterator)
    except RuntimeError as error:  # also from the lines that start and end the readers
        if str(error).startswith("DataLoader worker"):
            raise LoaderError(_what_happened(source, config, error)) from error
        raise


def _end(iterator: Any) -> None:
    """End the reading processes now, be they busy, idle or hanging; they hold nothing to lose.

    Not left to the garbage collector: a trace may hold the iterator until Python exits, and torch
    then raises once more about the processes that end. It would also wait five seconds for each
    that hangs.
    """
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD) if is_main and hasattr(signal, "SIGCHLD") else None
    if handler is not None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's raises at every death
    try:
        for process in getattr(iterator, "_workers", ()) if handler is not None else ():
            process.kill()
        getattr(iterator, "_shutdown_workers", lambda: None)()
    finally:
        if handler is not None:
            signal.signal(signal.SIGCHLD, handler)


def _batches(
    iterator: Iterator[Any], source: _Indexed, config: TrainConfig
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    while True:
        try:
            images, index = next(iterator)
        except StopIteration:
            return
        except LoaderError as error:
            # From another process it comes with that one's trace; the last line is the message.
            raise LoaderError(
                str(error).strip().splitlines()[-1].split("LoaderError: ")[-1]
            ) from error
        except (RuntimeError, OSError, EOFError) as error:
            # What a dead process looks like differs from time to time.
            raise LoaderError(_what_happened(source, config, error)) from error
        if images.dtype != torch.uint8:  # of bytes nothing is out of range
            check_pixels(images, index)
        yield images, source.faces.labels[index], index


def _take_orders_from_parent(worker: int) -> None:
    """Reading processes end when the parent says so, not by a signal to all.

    A terminal sends Ctrl-C, and many job schedulers SIGTERM, to every process of a run; without
    its readers the parent could not finish its step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _what_happened(source: _Indexed, config: TrainConfig, error: Exception) -> str:
    busy = {
        worker: [int(i) for i in rows if i >= 0]
        for worker, rows in enumerate(source.reading)
        if (rows >= 0).any()
    }
    return (
        f"a reading process died, or gave nothing for {config.loader_timeout:g} seconds "
        f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); images "
        f"being read, by process: {busy}. Look at these files; out of memory? use fewer workers; "
        "slow disk? raise loader_timeout"
    )


def prepare(
    state: TrainState,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    cache: Sequence[Tensor] | None,
    *,
    position: int,
) -> Batch:
    """Move a batch to the nets' device, mirror half of it if wanted, add the teacher's view.

    Args:
        state: holds the teacher.
        images: (N, 3, H, H), in [-1, 1] or bytes.
        labels: (N,).
        index: which images of the set they are, (N,).
        cache: what `cache_teacher` made, or None to ask the teacher now.
        position: number of the batch since the start of the run, which decides who is mirrored,
            and how images are changed.
    """
    config, device = state.config, state.device
    if config.augment:
        images = augment(as_floats(images), generator_for(config.seed, 8, position, rank()))
    memory_format = torch.channels_last if config.channels_last else torch.preserve_format
    images = as_floats(images.to(device, non_blocking=True)).to(memory_format=memory_format)
    mirrored = torch.zeros(len(index), dtype=torch.bool)
    if config.flip:
        generator = generator_for(config.seed, 2, position, rank())
        mirrored = torch.from_numpy(generator.random(len(index)) < 0.5)
        chosen = mirrored[:, None, None, None].to(device, non_blocking=True)
        images = torch.where(chosen, images.flip(-1), images)
    teacher_embeddings = None
    if cache is not None:
        rows = [view[index] for view in cache]
        own = torch.where(mirrored[:, None], rows[-1], rows[0])
        teacher_embeddings = own.to(device, non_blocking=True)
    elif state.teacher is not None:
        dtype = HALF[config.precision]
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
        ):
            teacher_embeddings = state.teacher(images).float()
        teacher_embeddings = teacher_embeddings.clone()  # autograd refuses inference tensors
    return Batch(images, labels.to(device, non_blocking=True), teacher_embeddings, index)
