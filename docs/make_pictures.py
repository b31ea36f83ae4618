"""Draw the pictures of the documentation from a bundle of the shipped model.

Run: python docs/make_pictures.py digits.bundle
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stnkit.models.pretrained import samples
from stnkit.runtime import load

SCALE = 3  # each pixel of a digit becomes 3x3
GAP_PX = 4
LABEL_PX = 190
COUNT = 12


def main(bundle: str) -> None:
    """Write docs/images/digits_before_after.png."""
    digits = samples("digits")
    # One of each class, then two more, in the order in which they come in the test set.
    first = [int(np.flatnonzero(digits.labels == label)[0]) for label in range(10)]
    chosen = sorted([*first, *np.setdiff1d(np.arange(40), first)[: COUNT - 10]])
    images = [digits.images[index][..., 0] for index in chosen]
    with load(bundle) as session:
        warped = [warp[..., 0] for warp in session.warp(images)]
        found = session.predict(images)
    side = 28 * SCALE
    width = LABEL_PX + COUNT * (side + GAP_PX)
    sheet = Image.new("L", (width, 2 * (side + GAP_PX) + 24), 255)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    rows = (
        ("input", [image / 255 for image in images]),
        ("after the transformer", warped),
    )
    for row, (text, pictures) in enumerate(rows):
        top = row * (side + GAP_PX)
        draw.text((6, top + side // 2 - 8), text, fill=0, font=font)
        for column, picture in enumerate(pictures):
            tile = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
            tile = tile.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (LABEL_PX + column * (side + GAP_PX), top))
    top = 2 * (side + GAP_PX)
    draw.text((6, top), "predicted", fill=0, font=font)
    for column, prediction in enumerate(found):
        left = LABEL_PX + column * (side + GAP_PX) + side // 2 - 4
        draw.text((left, top), prediction.label, fill=0, font=font)
    target = Path(__file__).parent / "images" / "digits_before_after.png"
    sheet.save(target, optimize=True)
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
