"""Draw the pictures of docs/models.md from trained models and MNIST.

Run: python docs/make_model_pictures.py MODELS MNIST

MODELS is a folder with the files that the commands of docs/models.md write: tutorial.keras,
paper-affine.keras, paper-projective.keras, paper-thin_plate_spline.keras, segmentation.keras and
registration.keras. MNIST is a folder with its four IDX files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import stnkit.models.registered  # noqa: F401  makes Keras know the layers
from stnkit.models import Affine, Attention, grid_sample, read_transformers
from stnkit.models.digits.mnist import load_mnist
from stnkit.models.digits.training import distorted_test_digits
from stnkit.models.recipes.clutter import Clutter
from stnkit.models.recipes.registration import evaluation_pairs
from stnkit.models.transforms.base import base_axes
from stnkit.models.zoo.parallel import tiles

FOLDER = Path(__file__).parent / "images" / "models"
FONT = ImageFont.load_default(15)
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#ff7f0e")
GAP_PX = 6
LABEL_PX = 150
COUNT = 8


def tile(values: Any, side: int) -> Image.Image:
    """Return a picture of `side` px of an image [h, w, 1 or 3] in [0, 1]."""
    pixels = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return picture.convert("RGB").resize((side, side), Image.Resampling.NEAREST)


def outline(picture: Image.Image, transform: Any, theta: Any, colour: str) -> None:
    """Draw where the border of the output is read in the input."""
    grid = transform.grid(np.asarray(theta, np.float32)[None], (64, 64), True).numpy()[0]
    edge = np.concatenate([grid[0], grid[:, -1], grid[-1, ::-1], grid[::-1, 0]])
    points = [tuple(point) for point in (edge + 1) / 2 * picture.width]
    ImageDraw.Draw(picture).line(points, fill=colour, width=3)


def sheet(name: str, rows: list[tuple[str, list[Image.Image], list[str]]]) -> None:
    """Write rows of pictures, each with its label and a caption under every picture."""
    side = rows[0][1][0].width
    width = LABEL_PX + max(len(pictures) for _, pictures, _ in rows) * (side + GAP_PX)
    heights = [side + GAP_PX + (20 if any(captions) else 0) for _, _, captions in rows]
    page = Image.new("RGB", (width, sum(heights)), "white")
    draw = ImageDraw.Draw(page)
    top = 0
    for (label, pictures, captions), height in zip(rows, heights, strict=True):
        draw.multiline_text((6, top + side // 2 - 10), label, fill="black", font=FONT)
        for column, picture in enumerate(pictures):
            left = LABEL_PX + column * (side + GAP_PX)
            page.paste(picture, (left, top))
            if captions:
                draw.text((left + 2, top + side + 2), captions[column], fill="black", font=FONT)
        top += height
    FOLDER.mkdir(parents=True, exist_ok=True)
    target = FOLDER / f"{name}.png"
    page.quantize(64).save(target, optimize=True)
    print(f"{target}: {target.stat().st_size} bytes")


def looked(model: Any, images: Any) -> tuple[list[Image.Image], list[Image.Image], list[str]]:
    """Return inputs with the transformer's outline, what it made of them, and the classes found."""
    seen = read_transformers(model, images)[0]
    transform = model.get_layer(seen.layer).transform
    before = [tile(image, 84) for image in images]
    for picture, theta in zip(before, seen.theta, strict=True):
        outline(picture, transform, theta, COLOURS[0])
    found = model.predict(images, verbose=0).argmax(axis=1)
    return before, [tile(image, 84) for image in seen.warped], [str(digit) for digit in found]


def draw_digits(models: Path, mnist: Any) -> None:
    """Draw the tutorial network, and the paper's with its three transforms."""
    images = distorted_test_digits(mnist)[0][:COUNT]
    before, after, found = looked(keras.saving.load_model(models / "tutorial.keras"), images)
    sheet("tutorial", [("input, and where\nit is read", before, []), ("read", after, found)])
    rows: list[Any] = [("input", [tile(image, 84) for image in images], [])]
    for transform in ("affine", "projective", "thin_plate_spline"):
        model = keras.saving.load_model(models / f"paper-{transform}.keras")
        _, after, found = looked(model, images)
        rows.append((transform.replace("thin_plate_", "thin plate\n"), after, found))
    sheet("paper", rows)


def scene(side: int) -> Any:
    """Return a picture that nobody has to download: a house, [side, side, 3] in [0, 1]."""
    page = Image.new("RGB", (side, side), "#9ecae1")
    draw = ImageDraw.Draw(page)
    unit = side / 16
    draw.rectangle((0, 11 * unit, side, side), fill="#74c476")
    draw.rectangle((5 * unit, 7 * unit, 12 * unit, 13 * unit), fill="#fdd0a2")
    draw.polygon([(4 * unit, 7 * unit), (8.5 * unit, 3 * unit), (13 * unit, 7 * unit)], "#a63603")
    draw.rectangle((6 * unit, 9 * unit, 8 * unit, 13 * unit), fill="#6b3d0c")
    draw.rectangle((9 * unit, 8.5 * unit, 11 * unit, 10.5 * unit), fill="#deebf7")
    draw.ellipse((1 * unit, 1 * unit, 3.5 * unit, 3.5 * unit), fill="#ffd92f")
    return np.asarray(page, np.float32) / 255


def draw_stages() -> None:
    """Draw two transformers in sequence: sampled once, and sampled at each."""
    image = scene(224)[None]
    affine = Affine()
    first = np.array([[0.75, -0.45, 0.35], [0.45, 0.75, 0.25]], np.float32)[None]
    second = np.array([[0.95, 0.55, -0.25], [-0.55, 0.95, -0.2]], np.float32)[None]
    whole = affine.compose(first, second)
    steps = [grid_sample(image, affine.grid(theta, (224, 224))) for theta in (first, whole)]
    twice = grid_sample(steps[0], affine.grid(second, (224, 224)))
    pictures = [tile(values, 224) for values in (image[0], steps[0][0], steps[1][0], twice[0])]
    outline(pictures[0], affine, first[0], COLOURS[0])
    outline(pictures[0], affine, whole[0].numpy(), COLOURS[1])
    captions = ["image; stages 1 and 2", "after stage 1", "stage 2, once", "stage 2, each"]
    sheet("stages", [("two stages", pictures, captions)])


def draw_crops() -> None:
    """Draw where the crops of a parallel network start."""
    image = scene(224)
    attention = Attention()
    pictures = [tile(image, 224), tile(image, 224)]
    for picture, count in zip(pictures, (2, 4), strict=True):
        for index, theta in enumerate(tiles(count)):
            outline(picture, attention, theta, COLOURS[index])
    crops = [
        tile(grid_sample(image[None], attention.grid(np.float32([theta]), (112, 112)))[0], 224)
        for theta in tiles(2)
    ]
    captions = ["2 crops at the start", "4 crops at the start", "crop 1 of 2", "crop 2 of 2"]
    sheet("parallel", [("parallel", [*pictures, *crops], captions)])


def draw_segmentation(models: Path, mnist: Any) -> None:
    """Draw scene, frame, and the mask in the frame and pasted back."""
    model = keras.saving.load_model(models / "segmentation.keras")
    chosen = np.arange(COUNT)
    scenes, masks = Clutter().draw(np.random.default_rng(1), mnist.test_images, chosen)
    inner = keras.Model(model.input, model.get_layer("frame_probabilities").output)
    seen = read_transformers(model, scenes)[0]
    before = [tile(image, 96) for image in scenes]
    transform = model.get_layer("spatial_transformer").transform
    for picture, theta in zip(before, seen.theta, strict=True):
        outline(picture, transform, theta, COLOURS[0])
    rows = [
        ("scene, and where\nthe frame lies", before),
        ("in the frame", [tile(image, 96) for image in seen.warped]),
        ("digit, in the frame", [tile(p[..., 1:2], 96) for p in inner(scenes).numpy()]),
        ("pasted back", [tile(p[..., 1:2], 96) for p in model(scenes).numpy()]),
        ("true mask", [tile(mask[..., None], 96) for mask in masks]),
    ]
    sheet("segmentation", [(label, pictures, []) for label, pictures in rows])


def draw_registration(models: Path, mnist: Any) -> None:
    """Draw moving and fixed image, both stages, and the flow as a bent grid."""
    model = keras.saving.load_model(models / "registration.keras")
    pairs = {key: value[:COUNT] for key, value in evaluation_pairs(mnist).items()}
    near, last = read_transformers(model, pairs)
    flow = model(pairs)["flow"].numpy()
    rows = [
        ("moving", [tile(image, 96) for image in pairs["moving"]]),
        ("fixed", [tile(image, 96) for image in pairs["fixed"]]),
        ("after the\naffine stage", [tile(image, 96) for image in near.warped]),
        ("after the flow", [tile(image, 96) for image in last.warped]),
        ("flow", [bent_grid(field, 96) for field in flow]),
    ]
    sheet("registration", [(label, pictures, []) for label, pictures in rows])


def bent_grid(flow: Any, side: int) -> Image.Image:
    """Return a picture of where every second row and column is read."""
    columns, rows = base_axes(flow.shape[:2], False, "float32")
    points = np.stack(np.meshgrid(columns, rows), axis=-1) + flow
    picture = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(picture)
    for lines in (points[::2], np.swapaxes(points, 0, 1)[::2]):
        for line in (lines + 1) / 2 * side:
            draw.line([tuple(point) for point in line], fill="#1f77b4")
    return picture


def main(models: Path, mnist_folder: Path) -> None:
    """Draw all of them."""
    mnist = load_mnist(mnist_folder)
    draw_digits(models, mnist)
    draw_stages()
    draw_crops()
    draw_segmentation(models, mnist)
    draw_registration(models, mnist)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
