"""From parameters to pictures: paint, wrap, dress, light, photograph."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ekd_lite.data.renderer.accessories import hold_object, wear_glasses, wear_mask
from ekd_lite.data.renderer.body import background, ears, neck_and_clothes
from ekd_lite.data.renderer.geometry import hit_head, look
from ekd_lite.data.renderer.hair import comb, style_hair
from ekd_lite.data.renderer.light import Surface, pick, set_lights, shade
from ekd_lite.data.renderer.paint import paint
from ekd_lite.data.renderer.parameters import Columns, identity_names, nuisance_names
from ekd_lite.data.renderer.photo import photograph
from ekd_lite.data.renderer.random import hash_uniforms, normals_from_uniforms
from ekd_lite.data.renderer.texture import Grid, skin_colour

# Raise this whenever a pixel changes: caches of older pictures then count as different.
RENDERER_VERSION = 2
_TILE, _STREAM = 128, 99
_RARE = ("mask", "glasses", "object", "blur", "low_resolution", "noise", "blocks")


@lru_cache(maxsize=4)
def noise_tiles(device: torch.device) -> tuple[Tensor, Tensor]:
    """Smooth noise `(1, 2, 128, 128)`, coarse and fine, and white noise `(256, 256)`.

    Mean 0, deviation 1, the same for every set.
    """
    rows = torch.arange(2 * _TILE)
    white = normals_from_uniforms(hash_uniforms(0, _STREAM, rows, columns=2 * _TILE))
    smooth = []
    for plane, times in ((white[:_TILE, :_TILE], 6), (white[_TILE:, _TILE:], 2)):
        for _ in range(times):
            for dim in (0, 1):
                plane = 0.25 * plane.roll(1, dim) + 0.5 * plane + 0.25 * plane.roll(-1, dim)
        smooth.append((plane / plane.std()).clamp(-2.5, 2.5))
    return torch.stack(smooth)[None].float().to(device), white.float().clamp(-3, 3).to(device)


def identity_noise(who: Columns, grid: Grid, tile: Tensor) -> Tensor:
    """Noise `(N, 2, R, C)` fixed to the face: freckles and mottling; hairs of beard and brows."""
    shape = (1, grid.y.shape[1], grid.x.shape[2])
    x, y = grid.x.expand(shape), grid.y.expand(shape)
    x = x * (1.0 + 2.5 * x.square().square())  # finer at the sides, which are stretched
    coarse = torch.stack([x * 1.7 + who.mottle_x, y * 1.7 + who.mottle_y], -1)
    fine = torch.stack([x * 1.6 + who.mottle_y, y * 0.7 + who.mottle_x], -1)
    tiles = tile.expand(len(coarse), -1, -1, -1)
    return torch.cat([
        F.grid_sample(tiles[:, 1:], coarse, padding_mode="reflection", align_corners=False),
        F.grid_sample(tiles[:, 1:], fine, padding_mode="reflection", align_corners=False),
    ], 1)  # fmt: skip


def render_faces(identity: Tensor, nuisance: Tensor, *, size: int, device: torch.device) -> Tensor:
    """Renders one picture for each row.

    Args:
        identity: `(N, K)` from `identity_table`, on the CPU.
        nuisance: `(N, L)` from `nuisance_table`, on the CPU.
        size: height and width in pixels, a multiple of 16.
        device: where to do the work.

    Returns:
        float32 `(N, 3, size, size)` in [-1, 1] on `device`.
    """
    # What befalls few pictures is done for those alone; they are found before the tables leave
    # the CPU, so that a GPU never has to wait for an answer.
    names = nuisance_names()
    events = {name: nuisance[:, names.index(name)].nonzero()[:, 0].to(device) for name in _RARE}
    tile, white = noise_tiles(device)
    who = Columns(identity_names(), identity.to(device))
    how = Columns(names, nuisance.to(device))

    view = look(how, size)
    lights = set_lights(how, view)
    style = style_hair(who, how)
    grid = Grid.of(size, device)
    spark = torch.stack([lights.key.x, lights.key.y], 1).clamp(-1.0, 1.0)
    texture = paint(who, how, style.colour, spark, grid, identity_noise(who, grid, tile))
    head, skin = hit_head(who, how, view, texture)

    hair = comb(who, how, style, view, head.point, tile)
    plain = skin_colour(who)
    body, cloth, cloth_colour, body_normal, dark = neck_and_clothes(who, how, view)
    dressed = plain * 0.92 + (cloth_colour - plain * 0.92) * cloth.unsqueeze(1)
    ear, hollow = ears(who, view)
    nearer = ((head.distance - ear.distance) * 20.0 + 0.5).clamp_(0.0, 1.0)
    ear_seen = ear.coverage * torch.maximum(nearer, 1.0 - head.coverage)
    ear_seen *= 1.0 - style.covers_ears
    ear_colour = plain * (1.0 - 0.5 * hollow).unsqueeze(1)
    ear_colour[:, 1:].mul_(0.9)
    front = hair.front * (1.0 - ear_seen)

    # from back to front
    picture = Surface.of(hair.back_colour, hair.normal, hair.back, 0.2, 1.0).spread()
    figure = hair.back.clone()
    for layer, alpha in (
        (Surface.of(dressed, body_normal, dark, 0.25 * (1.0 - cloth), 0.0), body),
        (
            Surface.of(skin[:, :3], head.normal, skin[:, 6] * hair.shade, skin[:, 7], 0.0),
            head.coverage,
        ),
        (Surface.of(ear_colour, ear.normal, 1.0 - 0.7 * hollow, 0.3, 0.0), ear_seen),
        (Surface.of(hair.colour, hair.normal, hair.open, 1.0, hair.fibre), front),
    ):
        figure += alpha - figure * alpha
        # Where a pixel is but partly covered, the background shows through, not the layer below.
        picture.cover(layer, alpha / figure.clamp(min=1e-3))

    for name, put_on in (("mask", wear_mask), ("glasses", wear_glasses), ("object", hold_object)):
        rows = events[name]
        if len(rows):
            some = pick(picture, rows)
            alpha = put_on(some, who.pick(rows), how.pick(rows), pick(view, rows), pick(head, rows))
            for mine, part in zip(picture, some, strict=True):
                mine[rows] = part
            figure[rows] += alpha - figure[rows] * alpha

    linear = shade(picture, lights, how)
    behind = background(how, view, tile)
    linear = behind + (linear - behind) * figure.unsqueeze(1)
    return photograph(linear, how, events, white)
