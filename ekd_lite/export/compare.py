"""What each form of a net costs and what it loses: latency and TPR at FPR, paired."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ekd_lite.data import FaceSet
from ekd_lite.evaluate import BootstrapResult, bootstrap_tpr_at_fpr, embed, paired_difference


@dataclass(frozen=True)
class FormatCost:
    """One form of a net, measured.

    Attributes:
        latency_ms: median milliseconds for one image on one CPU thread.
        result: TPR at FPR on the test set, with the resamples behind its interval.
        difference: TPR minus that of the first form, (L,).
        low: lower end of the difference's 95 % interval, (L,).
        high: upper end, (L,).
    """

    latency_ms: float
    result: BootstrapResult
    difference: Tensor
    low: Tensor
    high: Tensor


def compare_formats(
    nets: Mapping[str, nn.Module],
    faces: FaceSet,
    fprs: Iterable[float],
    *,
    num_resamples: int = 1000,
) -> dict[str, FormatCost]:
    """Measure several forms of one net on the same faces; differences are from the first.

    Images are embedded one at a time, as a deployed net sees them.

    Args:
        nets: name -> net, such as a backbone and `OnnxModel`s of it with threads=1.
        faces: test faces, of people whom neither training nor calibration has seen.
        fprs: false-positive rates, L of them.
        num_resamples: bootstrap resamples behind the intervals.
    """
    levels = tuple(fprs)
    latency = time_interleaved(nets, faces.batch([0]))
    results = {
        name: bootstrap_tpr_at_fpr(
            embed(net, faces, batch_size=1, progress=name),
            faces.labels,
            levels,
            num_resamples=num_resamples,
        )
        for name, net in nets.items()
    }
    first = next(iter(results.values()))
    return {
        name: FormatCost(latency[name], result, *paired_difference(result, first))
        for name, result in results.items()
    }


def time_interleaved(
    nets: Mapping[str, nn.Module], images: Tensor, *, rounds: int = 50, calls: int = 5
) -> dict[str, float]:
    """Median milliseconds of each net for the same images, by turns, with one torch thread.

    In every round each net is called some times in a row, in an order drawn anew, so that other
    work on the machine slows all of them alike and the ratios stand. The first call of a turn finds
    the caches full of another net and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in nets}
    order = random.Random(0)  # noqa: S311 - an order of measurement
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for _ in range(rounds):
                for name in order.sample(list(nets), len(nets)):
                    seconds[name] += _calls(nets[name], images, calls)
    finally:
        torch.set_num_threads(threads)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def _calls(net: nn.Module, images: Tensor, count: int) -> list[float]:
    net(images)
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        net(images)
        seconds.append(time.perf_counter() - start)
    return seconds
