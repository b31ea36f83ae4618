"""Image files in, PNG files out."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from stnkit.runtime.errors import InputError
from stnkit.runtime.manifest_records import Preprocessing
from stnkit.runtime.preprocess import IMAGE_PIXELS_MAX, load_image, prepare_array, save_warp
from stnkit.runtime.signature import TensorSpec

GRAY = Preprocessing("x", (4, 6), 1, 1 / 255)
RGB = Preprocessing("x", (4, 6), 3, 1 / 255)
RGBA = Preprocessing("x", (4, 6), 4, 1 / 255)


def pixels(channels: int, height: int = 4, width: int = 6) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(channels).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("preprocessing", [GRAY, RGB, RGBA])
def test_exact_pixels(tmp_path, preprocessing):
    values = pixels(preprocessing.channels)
    Image.fromarray(values).save(tmp_path / "a.png")
    found = load_image(tmp_path / "a.png", preprocessing)
    assert found.dtype == np.float32
    assert found.shape == (4, 6, preprocessing.channels)
    np.testing.assert_allclose(found, values.reshape(found.shape) / 255, atol=1e-7)


def test_normalisation_by_hand(tmp_path):
    Image.new("RGB", (6, 4), (0, 51, 255)).save(tmp_path / "a.png")
    chosen = Preprocessing("x", (4, 6), 3, 1 / 51, (1.0, 0.0, 2.0), (2.0, 1.0, 0.5))
    # (pixel / 51 - mean) / std
    np.testing.assert_allclose(
        load_image(tmp_path / "a.png", chosen)[0, 0], [-0.5, 1, 6], atol=1e-6
    )


def test_bilevel_palette_and_16_bit(tmp_path):
    bits = pixels(1) > 127
    Image.fromarray(bits).save(tmp_path / "1.png")
    np.testing.assert_array_equal(load_image(tmp_path / "1.png", GRAY)[..., 0], bits)

    color = Image.fromarray(pixels(3)).quantize(16)
    color.save(tmp_path / "p.png")
    want = np.asarray(color.convert("RGB")) / 255
    np.testing.assert_allclose(load_image(tmp_path / "p.png", RGB), want, atol=1e-7)

    deep = np.array([[0, 257, 65535], [128, 32768, 1]], np.uint16).repeat(2, 0).repeat(2, 1)
    Image.fromarray(deep).save(tmp_path / "16.png")
    found = load_image(tmp_path / "16.png", GRAY)
    np.testing.assert_allclose(found[..., 0], deep / 65535, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "preprocessing", "parts"),
    [
        ("RGB", GRAY, ["3 channels (RGB)", "takes 1 (grayscale)", "convert it first"]),
        ("L", RGB, ["1 channel (grayscale)", "takes 3 (RGB)"]),
        ("RGBA", RGB, ["4 channels (RGBA)", "takes 3 (RGB)"]),
        ("RGB", RGBA, ["3 channels (RGB)", "takes 4 (RGBA)"]),
        ("LA", GRAY, ["2 channels (LA)", "takes 1 (grayscale)"]),
        ("P", GRAY, ["3 channels (palette)", "takes 1 (grayscale)"]),
        ("CMYK", RGBA, ["4 channels (CMYK)", "takes 4 (RGBA)"]),
        ("F", GRAY, ["an unusual kind (F)", "takes 1"]),
    ],
)
def test_wrong_channels(tmp_path, mode, preprocessing, parts):
    path = tmp_path / ("cat.tif" if mode in ("CMYK", "F") else "cat.png")
    Image.new(mode, (6, 4)).save(path)
    with pytest.raises(InputError) as caught:
        load_image(path, preprocessing)
    for part in ["cat.", *parts]:
        assert part in str(caught.value)


def test_transparency_counts_as_a_channel(tmp_path):
    Image.fromarray(pixels(3)).quantize(8).save(tmp_path / "p.png", transparency=0)
    with pytest.raises(InputError, match=r"4 channels \(palette with transparency\)"):
        load_image(tmp_path / "p.png", RGB)
    assert load_image(tmp_path / "p.png", RGBA)[..., 3].min() == 0
    Image.fromarray(pixels(1)).save(tmp_path / "l.png", transparency=3)
    with pytest.raises(InputError, match=r"2 channels \(grayscale with transparency\)"):
        load_image(tmp_path / "l.png", GRAY)


@pytest.mark.parametrize("size", [(2, 3), (40, 60), (5, 7)])
def test_other_sizes_are_resized_bilinearly(tmp_path, size):
    image = Image.fromarray(pixels(3, *size))
    image.save(tmp_path / "a.png")
    want = np.asarray(image.resize((6, 4), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(load_image(tmp_path / "a.png", RGB), want, atol=1e-7)


def test_shrinking_averages(tmp_path):
    board = (np.indices((40, 60)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    assert np.abs(load_image(tmp_path / "a.png", GRAY) - 0.5).max() < 0.03


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    upright = pixels(3)
    # What a camera would have stored so that the tag turns it upright again.
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undo(upright))).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_allclose(load_image(tmp_path / "a.png", RGB), upright / 255, atol=1e-7)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8001, 10_000, 60_000])
def test_too_many_pixels_are_refused_before_decoding(tmp_path, side):
    assert side * side > IMAGE_PIXELS_MAX
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(InputError, match=r"bomb\.png .*pixels: expected at most 64,000,000"):
        load_image(tmp_path / "bomb.png", GRAY)


def test_files_that_are_no_images(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(pixels(1, 40, 60)).save(buffer, format="PNG")
    whole = buffer.getvalue()
    jpeg = io.BytesIO()
    Image.fromarray(pixels(1, 40, 60)).save(jpeg, format="JPEG")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EndComments\n"
    for data in (
        b"",
        b"hello",
        whole[:20],
        whole[: len(whole) // 2],
        jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        png_header(6, 400),
        eps,
    ):
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(
            InputError, match=r"a\.png is not (an image|a readable image)"
        ) as caught:
            load_image(tmp_path / "a.png", GRAY)
        assert "\n" not in str(caught.value)


def test_damaged_images_never_raise_anything_else(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(pixels(1)).save(buffer, format="PNG")
    data = buffer.getvalue()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 8)
        (tmp_path / "a.png").write_bytes(changed)
        try:
            assert load_image(tmp_path / "a.png", GRAY).shape == (4, 6, 1)
        except InputError:
            pass


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.png cannot be read \(No such file"):
        load_image(tmp_path / "none.png", GRAY)
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        load_image(tmp_path, GRAY)
    with pytest.raises(InputError, match="cannot be read"):
        load_image("a\0b", GRAY)


def test_arrays_take_the_same_way_as_files(tmp_path):
    spec = TensorSpec("x", "float32", ("batch", 4, 6, 3))
    for size in ((4, 6), (9, 5)):
        values = pixels(3, *size)
        Image.fromarray(values).save(tmp_path / "a.png")
        np.testing.assert_array_equal(
            prepare_array(values, RGB, spec), load_image(tmp_path / "a.png", RGB)
        )


class TestSaveWarp:
    """The way back."""

    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("normalised", [False, True])
    def test_undoes_the_normalisation(self, tmp_path, channels, normalised):
        extra = ((0.4,) * channels, (0.3,) * channels) if normalised else (None, None)
        chosen = Preprocessing("x", (4, 6), channels, 1 / 255, *extra)
        values = pixels(channels)
        Image.fromarray(values).save(tmp_path / "a.png")
        save_warp(load_image(tmp_path / "a.png", chosen), tmp_path / "b.png", chosen)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), values)

    def test_clips_and_takes_any_size(self, tmp_path):
        save_warp(np.array([[[-0.5], [0.5], [1.5]]]), tmp_path / "b.png", GRAY)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), [[0, 128, 255]])

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((4, 6, 16)), "feature map"),
            (np.zeros((4, 6)), r"shape \[4, 6\]: expected"),
            (np.zeros((0, 6, 1)), r"shape \[0, 6, 1\]"),
            (np.full((4, 6, 1), np.nan), "not finite"),
        ],
    )
    def test_what_is_no_image(self, tmp_path, array, message):
        with pytest.raises(InputError, match=message):
            save_warp(array, tmp_path / "b.png", GRAY)
        assert not (tmp_path / "b.png").exists()

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(InputError, match=r"b\.png cannot be written \(No such file"):
            save_warp(np.zeros((4, 6, 1)), tmp_path / "no" / "b.png", GRAY)
