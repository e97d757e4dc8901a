"""Weights and an image from formulas: a test needs no download and nobody else's code."""

import math

import torch


def fill(shapes):
    """A state dict with numbers that depend on the place of a tensor and of an element in it."""
    made = {}
    for place, (name, shape) in enumerate(shapes.items()):
        if name.endswith("num_batches_tracked"):
            made[name] = torch.tensor(7)
            continue
        size = math.prod(shape)
        wave = torch.sin(torch.arange(size, dtype=torch.float64) * 1.7 + 0.9 * place)
        if name.endswith("running_var"):
            wave = 1 + 0.5 * wave.square()
        elif len(shape) > 1:
            wave = wave * math.sqrt(2 / math.prod(shape[1:]))
        elif name.endswith("weight"):
            wave = 0.6 + 0.3 * wave
        else:
            wave = 0.1 * wave
        made[name] = wave.float().view(shape)
    return made


def picture():
    """An image in [-1, 1], (1, 3, 112, 112)."""
    c, y, x = torch.meshgrid(torch.arange(3), torch.arange(112), torch.arange(112), indexing="ij")
    return torch.sin(0.11 * x + 0.07 * (c + 1) * y).float()[None]
