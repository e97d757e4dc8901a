"""What the things to play with share: one HTML shell, style and script for all of them.

A widget is a dataclass that displays itself in a notebook. Its HTML is self-contained: numbers in
an attribute, style and script inline, no request, no kernel. The script of a widget is a plain file
next to its module; `base.js` has what they share. Controls are native inputs, so that keyboards and
screen readers work them. Where scripts are off a sentence stands alone; in print the picture
stands still, without its controls.
"""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch import Tensor

from ekd_lite.plots.diagrams import LOSS, STUDENT, TEACHER


def read_part(name: str) -> str:
    """The text of a file next to this one."""
    return (files("ekd_lite.plots.play") / name).read_text(encoding="utf-8").strip()


@dataclass(frozen=True)
class Widget:
    """Something to play with. A subclass says what it shows; its script does the rest.

    Attributes:
        name: of its script, NAME.js.
        title: what a screen reader calls it.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    def _numbers(self) -> Mapping[str, Any]:
        """What the script is given, as JSON can hold it."""
        raise NotImplementedError

    def _sentence(self) -> str:
        """What stands there without scripts."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        numbers = json.dumps(self._numbers(), ensure_ascii=False, separators=(",", ":"))
        script = read_part("base.js") + "\n" + read_part(f"{self.name}.js")
        assert "</script" not in script
        colours = f".ekd-play{{--student:{STUDENT};--teacher:{TEACHER};--loss:{LOSS}}}"
        return (
            f"<style>{read_part('base.css')}{colours}</style>"
            f'<div class="ekd-play" data-play="{self.name}" role="group" '
            f'aria-label="{html.escape(self.title)}" data-numbers="{html.escape(numbers)}">'
            f'<p class="still">{html.escape(self._sentence())}</p></div>'
            f"<script>(function(){{{script}\n}})()</script>"
        )


def rounded(values: Iterable[float], digits: int = 6) -> list[float]:
    """Numbers as short as they may be written."""
    return [round(float(value), digits) for value in values]


def check_between(name: str, value: float, low: float, high: float) -> None:
    """A `ValueError` that says what was expected, unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be in {low}..{high}, got {value}")


def check_lengths(**sequences: Sequence[Any]) -> None:
    """A `ValueError` unless all have one length, and that is not 0."""
    lengths = {name: len(values) for name, values in sequences.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"expected as many of each, and at least one: {lengths}")


def jpeg(picture: Tensor) -> bytes:
    """A picture in [-1, 1], (3, H, W), as JPEG."""
    pixels = ((picture.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=85, optimize=True)
    return buffer.getvalue()
