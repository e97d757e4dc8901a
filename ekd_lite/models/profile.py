"""What a backbone costs: parameters, multiply-adds, milliseconds."""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Profile:
    """Cost of embedding one image.

    Attributes:
        parameters: learned numbers, batch-norm scales included, running statistics not.
        macs: multiply-adds of convolutions and linear layers; 1 MAC = 2 FLOP.
        latency_ms: median milliseconds for one image on one CPU thread.
    """

    parameters: int
    macs: int
    latency_ms: float


def profile_backbone(backbone: nn.Module, *, image_size: int, repeats: int = 30) -> Profile:
    """Count parameters and multiply-adds and time a backbone on one CPU thread.

    The given module is not touched: a copy in evaluation mode is measured.

    Args:
        backbone: maps (1, 3, image_size, image_size) to an embedding.
        image_size: side of the square input, pixels.
        repeats: timed runs, after a fifth as many to warm up.
    """
    backbone = copy.deepcopy(backbone).cpu().float().eval()
    image = torch.zeros(1, 3, image_size, image_size)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # Not inference_mode: there torch 2.4 counts nothing.
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            backbone(image)
        with torch.inference_mode():
            seconds = []
            for _ in range(repeats + repeats // 5):
                start = time.perf_counter()
                backbone(image)
                seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return Profile(
        parameters=sum(p.numel() for p in backbone.parameters()),
        macs=counter.get_total_flops() // 2,
        latency_ms=1000 * statistics.median(seconds[repeats // 5 :]),
    )
