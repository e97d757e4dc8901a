"""Draw the book's emblem and the card that stands beside a shared link.

    python book/tools/emblem.py

Writes to book/_static: `favicon.svg`; `touch-icon.png`, the same for phones; and `card.jpg`, the
book's title beside faces that the library renders.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "book" / "_static"
SIZE = 64  # of the emblem, in its own units
BLUE, WHITE, AMBER = "#17365d", "#ffffff", "#ffb347"
# A large face, the teacher, and a small one, the student: (x, y, radius, colour) of each disc.
DISCS = [
    (26, 26, 19, WHITE),
    (19, 23, 3, BLUE),
    (33, 23, 3, BLUE),
    (45, 45, 14.5, BLUE),
    (45, 45, 12, AMBER),
    (40.5, 43, 2, BLUE),
    (49.5, 43, 2, BLUE),
]
CARD = (1200, 630)
FACE, COLUMNS, ROWS = 126, 4, 5


def svg() -> str:
    """The emblem as SVG."""
    discs = "".join(
        f'<circle cx="{x:g}" cy="{y:g}" r="{r:g}" fill="{colour}"/>' for x, y, r, colour in DISCS
    )
    square = f'<rect width="{SIZE}" height="{SIZE}" rx="12" fill="{BLUE}"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}" '
        f'aria-hidden="true">{square}{discs}</svg>\n'
    )


def emblem(pixels: int) -> Image.Image:
    """The emblem as a picture, its corners filled, since phones cut them round themselves."""
    scale = 4 * pixels / SIZE  # drawn four times as large, then reduced: smooth edges
    picture = Image.new("RGB", (4 * pixels, 4 * pixels), BLUE)
    draw = ImageDraw.Draw(picture)
    for x, y, r, colour in DISCS:
        draw.ellipse([scale * v for v in (x - r, y - r, x + r, y + r)], fill=colour)
    return picture.resize((pixels, pixels), Image.Resampling.LANCZOS)


def faces() -> Image.Image:
    """Rows of rendered faces, one person each."""
    from ekd_lite.data import SyntheticFaces

    people = SyntheticFaces(ROWS, COLUMNS, image_size=128, seed=5)
    sheet = Image.new("RGB", (COLUMNS * FACE, ROWS * FACE))
    for index in range(ROWS * COLUMNS):
        pixels = ((people[index][0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        face = Image.fromarray(pixels).resize((FACE, FACE), Image.Resampling.LANCZOS)
        sheet.paste(face, (index % COLUMNS * FACE, index // COLUMNS * FACE))
    return sheet


def card() -> Image.Image:
    """The picture of a shared link."""
    from matplotlib.font_manager import findfont

    def font(size: int, weight: str = "normal") -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(findfont(f"DejaVu Sans:{weight}"), size)

    picture = Image.new("RGB", CARD, BLUE)
    sheet = faces()
    picture.paste(sheet, (CARD[0] - sheet.width, 0))
    picture.paste(emblem(112), (64, 64))
    draw = ImageDraw.Draw(picture)
    draw.multiline_text((64, 218), "Face\nRecognition,\nDistilled", WHITE, font(68, "bold"))
    draw.multiline_text((64, 500), "A textbook that runs,\nfrom ArcFace to EKD", AMBER, font(32))
    return picture


def main() -> None:
    """Write the three files."""
    (STATIC / "favicon.svg").write_text(svg(), encoding="utf-8")
    emblem(180).save(STATIC / "touch-icon.png", optimize=True)
    card().save(STATIC / "card.jpg", quality=80, optimize=True)


if __name__ == "__main__":
    main()
