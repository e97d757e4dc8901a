"""Draws of people and seeds by the formula of `ekd_lite.evaluate.differences`, one by one."""

import math

import numpy as np

from ekd_lite.ops import generator_for


def draws_over_seeds(estimates, samples):
    """Draws (R,) of the mean of U >= 2 runs: estimates (U,), resamples of people (U, R)."""
    count, num_draws = len(estimates), len(samples[0])
    generator = generator_for(0, 7, count)
    z = generator.standard_normal((num_draws, count))
    chi = generator.chisquare(count - 1, (num_draws, 1))
    mean = sum(estimates) / count
    found = []
    for r in range(num_draws):
        value = sum(float(row[r]) for row in samples) / count
        wide = math.sqrt((count - 1) / chi[r, 0])
        for u in range(count):
            value += wide * z[r, u] * (estimates[u] - mean) / math.sqrt(count * (count - 1))
        found.append(value)
    return np.array(found)
