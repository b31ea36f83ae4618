"""Turn image files into a model's input, and a warped image back into a file.

Formula: `value = (pixel * scale - mean) / std` with pixels in 0..255, after resizing.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stnkit.runtime.errors import InputError, one_line
from stnkit.runtime.manifest_records import Preprocessing
from stnkit.runtime.signature import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

__all__ = [
    "IMAGE_FORMATS",
    "IMAGE_PIXELS_MAX",
    "decode_image",
    "load_image",
    "prepare_array",
    "save_warp",
]

IMAGE_PIXELS_MAX = 64 * 10**6
"""Largest image that is decoded: a 64-megapixel photograph is 192 MB in memory, and a file of a
few kilobytes can declare far more."""

IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are read. Pillow knows dozens more, some of which start other programs."""

_CHANNEL_NAMES = {1: "grayscale", 3: "RGB", 4: "RGBA"}
_CHANNELS_OF_MODE = {"1": 1, "L": 1, "P": 3, "RGB": 3, "RGBA": 4, "LA": 2, "PA": 4, "CMYK": 4}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# 16-bit grayscale in the byte orders that Pillow distinguishes.
_MODES_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def load_image(
    path: str | os.PathLike[str], preprocessing: Preprocessing
) -> npt.NDArray[np.float32]:
    """Read an image file the way the bundle wants it.

    The EXIF orientation is applied; another size is resized with Pillow's bilinear filter, which
    averages when it shrinks; of several frames the first is taken. Channels are never converted:
    16-bit grayscale is scaled to 0..255, a palette is looked up.

    Args:
        path: a BMP, GIF, JPEG, PNG, PPM, TIFF or WebP file.
        preprocessing: size, channels and normalisation.

    Returns:
        `[height, width, channels]` float32 in the model's range.

    Raises:
        InputError: no such file, not an image, truncated, more than 64 megapixels, or another
            number of channels than the model takes.
    """
    shown = one_line(os.fspath(path))
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else one_line(exc)
        raise InputError(f"{shown} cannot be read ({reason}): expected an image file") from exc
    return decode_image(data, preprocessing, shown)


def decode_image(
    data: bytes,
    preprocessing: Preprocessing,
    shown: str = "the image",
    *,
    pixels_max: int = IMAGE_PIXELS_MAX,
) -> npt.NDArray[np.float32]:
    """Read the content of an image file the way the bundle wants it; see `load_image`.

    Args:
        data: the content of a BMP, GIF, JPEG, PNG, PPM, TIFF or WebP file.
        preprocessing: size, channels and normalisation.
        shown: what to call it in a message.
        pixels_max: the most pixels that are decoded.

    Returns:
        `[height, width, channels]` float32 in the model's range.

    Raises:
        InputError: see `load_image`.
    """
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, and of what is bounded
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as opened:
                pixels = opened.width * opened.height
                if pixels > pixels_max:
                    raise InputError(
                        f"{shown} has {opened.width} x {opened.height} pixels: expected at most "
                        f"{pixels_max:,} in all"
                    )
                _check_channels(opened, preprocessing, shown)
                opened.load()
                image = _to_channels(ImageOps.exif_transpose(opened), preprocessing.channels)
    except InputError:
        raise
    except Image.DecompressionBombError as exc:
        raise InputError(
            f"{shown} declares too many pixels: expected at most {pixels_max:,}"
        ) from exc
    except UnidentifiedImageError as exc:  # its text names an object in memory
        raise InputError(
            f"{shown} is not an image: expected a whole file of {', '.join(IMAGE_FORMATS)}"
        ) from exc
    except Exception as exc:  # the boundary: Pillow's plugins raise nearly anything on bad files
        raise InputError(
            f"{shown} is not a readable image ({one_line(exc)}): expected a whole file of "
            f"{', '.join(IMAGE_FORMATS)}"
        ) from exc
    return _normalize(np.asarray(_resize(image, preprocessing), np.float32), preprocessing)


def prepare_array(
    image: npt.NDArray[Any], preprocessing: Preprocessing, spec: TensorSpec, what: str = "the image"
) -> npt.NDArray[np.float32]:
    """Turn one array into a model's input.

    Args:
        image: `[height, width]` or `[height, width, channels]`: uint8 in 0..255, of any size,
            treated as a file's pixels; or float32/float64 of the model's size, in its own range.
        preprocessing: size, channels and normalisation.
        spec: the input that takes the image.
        what: what to call it in a message.

    Returns:
        `[height, width, channels]` float32 in the model's range.

    Raises:
        InputError: another rank, channel count, dtype, size or range.
    """
    import numpy as np
    from PIL import Image

    channels = preprocessing.channels
    height, width = preprocessing.size
    pixels = image[:, :, None] if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[2] != channels or 0 in pixels.shape:
        raise InputError(
            f"{what} has shape {list(image.shape)}: expected [{height}, {width}, {channels}]"
        )
    if image.dtype == np.uint8:
        if pixels.shape[0] * pixels.shape[1] > IMAGE_PIXELS_MAX:
            raise InputError(f"{what} is larger than {IMAGE_PIXELS_MAX:,} pixels: shrink it first")
        plain = np.ascontiguousarray(pixels[:, :, 0] if channels == 1 else pixels)
        resized = _resize(Image.fromarray(plain), preprocessing)
        return _normalize(np.asarray(resized, np.float32), preprocessing)
    if image.dtype not in (np.float32, np.float64):
        raise InputError(
            f"{what} is {image.dtype}: expected uint8 in 0..255, or float32 in the model's range"
        )
    if pixels.shape[:2] != (height, width):
        raise InputError(
            f"{what} has shape {list(image.shape)}: expected [{height}, {width}, {channels}]; "
            "only uint8 images are resized"
        )
    low, high = spec.range or (-np.inf, np.inf)
    smallest, largest = float(pixels.min()), float(pixels.max())
    if not (np.isfinite(smallest) and np.isfinite(largest) and low <= smallest and largest <= high):
        raise InputError(
            f"{what} has values from {smallest:g} to {largest:g}: expected finite ones from "
            f"{low:g} to {high:g}, or uint8 in 0..255"
        )
    return pixels.astype(np.float32)


def save_warp(
    array: npt.NDArray[Any], path: str | os.PathLike[str], preprocessing: Preprocessing
) -> None:
    """Write a warped image as a PNG file: `pixel = (value * std + mean) / scale`, rounded.

    Args:
        array: `[height, width, channels]` in the model's range, any size.
        path: the file to write; an existing one is replaced.
        preprocessing: the normalisation that is undone.

    Raises:
        InputError: another number of channels, values that are not finite, or a file that cannot
            be written.
    """
    import numpy as np
    from PIL import Image

    channels = preprocessing.channels
    values = np.asarray(array, dtype=np.float64)
    if values.ndim != 3 or values.shape[2] != channels or 0 in values.shape:
        raise InputError(
            f"the warped image has shape {list(values.shape)}: expected [height, width, {channels}]"
            ", as the model's images have; it is a feature map that no image file can hold"
        )
    if not np.isfinite(values).all():
        raise InputError("the warped image has values that are not finite: expected numbers")
    std = np.asarray(preprocessing.std or (1.0,) * channels)
    mean = np.asarray(preprocessing.mean or (0.0,) * channels)
    pixels = np.rint(np.clip((values * std + mean) / preprocessing.scale, 0, 255)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(buffer, format="PNG")
    try:
        Path(path).write_bytes(buffer.getvalue())
    except OSError as exc:
        raise InputError(
            f"{one_line(os.fspath(path))} cannot be written ({exc.strerror}): expected a folder "
            "that exists"
        ) from exc


def _check_channels(image: Image.Image, preprocessing: Preprocessing, shown: str) -> None:
    mode, wanted = image.mode, preprocessing.channels
    transparent = "transparency" in image.info
    if mode in _MODES_16_BIT:
        have: int | None = 1
    else:
        have = _CHANNELS_OF_MODE.get(mode)
    if transparent and mode in ("1", "L", "P", "RGB"):
        have = {1: 2, 3: 4}[have or 3]
    if have == wanted and mode not in ("CMYK", "PA"):
        return
    described = {"P": "palette", "L": "grayscale"}.get(mode, mode)
    if transparent:
        described += " with transparency"
    count = f"{have} channel{'' if have == 1 else 's'}" if have else "pixels of an unusual kind"
    raise InputError(
        f"{shown} has {count} ({described}); the model takes {wanted} "
        f"({_CHANNEL_NAMES[wanted]}): convert it first"
    )


def _to_channels(image: Image.Image, channels: int) -> Image.Image:
    import numpy as np
    from PIL import Image

    if image.mode in _MODES_16_BIT:
        # 65535 becomes 255; the fraction is kept, in Pillow's float mode.
        return Image.fromarray(np.asarray(image).astype(np.float32) / np.float32(257))
    return image if image.mode == _MODES[channels] else image.convert(_MODES[channels])


def _resize(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    from PIL import Image

    height, width = preprocessing.size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _normalize(
    pixels: npt.NDArray[np.float32], preprocessing: Preprocessing
) -> npt.NDArray[np.float32]:
    import numpy as np

    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    values = pixels * np.float32(preprocessing.scale)
    if preprocessing.mean is not None:
        values -= np.asarray(preprocessing.mean, np.float32)
    if preprocessing.std is not None:
        values /= np.asarray(preprocessing.std, np.float32)
    return values
