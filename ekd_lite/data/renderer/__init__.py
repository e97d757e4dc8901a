"""The renderer of the procedural faces, split by subject; `render.py` puts the parts together."""

from ekd_lite.data.renderer.draw import identity_latents, identity_table, nuisance_table
from ekd_lite.data.renderer.geometry import hit_head, look
from ekd_lite.data.renderer.hair import style_hair
from ekd_lite.data.renderer.light import set_lights
from ekd_lite.data.renderer.paint import paint
from ekd_lite.data.renderer.parameters import (
    IDENTITY_PARAMETERS,
    Columns,
    identity_names,
    nuisance_names,
)
from ekd_lite.data.renderer.random import hash_uniforms
from ekd_lite.data.renderer.render import (
    RENDERER_VERSION,
    identity_noise,
    noise_tiles,
    render_faces,
)
from ekd_lite.data.renderer.texture import Grid

__all__ = [
    "IDENTITY_PARAMETERS",
    "RENDERER_VERSION",
    "Columns",
    "Grid",
    "hash_uniforms",
    "hit_head",
    "identity_latents",
    "identity_names",
    "identity_noise",
    "identity_table",
    "look",
    "noise_tiles",
    "nuisance_names",
    "nuisance_table",
    "paint",
    "render_faces",
    "set_lights",
    "style_hair",
]
