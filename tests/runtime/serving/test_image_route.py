"""Post an image file, get labels: exactly what a session predicts for the file."""

from __future__ import annotations

import gzip
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from stnkit.models import pretrained
from stnkit.runtime import load
from stnkit.runtime.errors import InputError

PATH = "/v2/models/toy/classify"
LABELS = ("cat", "dog", "owl")


def encoded(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(*size, seed=3):
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


@pytest.fixture(scope="module")
def server(http_process, toy_served):
    return http_process(toy_served, f"two@4={toy_served}", limits={"image_pixels_max": 250_000})


@pytest.fixture
def post(server, raw_http):
    def send(data, path=PATH, **headers):
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return raw_http.ask(server.port, raw_http.request("POST", path, data, named))

    return send


def test_one_image_by_hand(post, toy):
    """The toy's preprocessing is a division by 255, and its truth is a few lines of NumPy."""
    image = pixels(4, 4)
    answer = post(encoded(image), content_type="image/png")
    assert answer.status == 200
    scores = toy.run(image[None, :, :, None] / 255)["probabilities"][0]
    order = np.argsort(-scores)
    found = answer.json()
    assert list(found) == ["model_name", "model_version", "predictions"]
    assert (found["model_name"], found["model_version"]) == ("toy", "1")
    assert [it["index"] for it in found["predictions"]] == order.tolist()
    assert [it["label"] for it in found["predictions"]] == [LABELS[i] for i in order]
    np.testing.assert_allclose(
        [it["score"] for it in found["predictions"]], scores[order], atol=1e-6
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@pytest.mark.parametrize("size", [(4, 4), (9, 31), (400, 600)])
def test_files_of_every_kind_and_size(post, toy_served, tmp_path, kind, size):
    options = {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}
    image = pixels(*size)
    file = tmp_path / "image"
    file.write_bytes(encoded(image, kind, **(options if kind == "JPEG" else {})))
    answer = post(file.read_bytes())
    with load(toy_served) as session:
        try:
            (expected,) = session.predict([file])
        except InputError:  # Pillow reads some of them in colours, and the model takes one channel
            assert kind in ("GIF", "WEBP")
            assert answer.status == 400
            assert "3 channels" in answer.json()["error"]
            return
    found = answer.json()["predictions"]
    assert found[0]["label"] == expected.label
    scores = {it["index"]: it["score"] for it in found}
    np.testing.assert_allclose([scores[i] for i in range(3)], expected.scores, atol=1e-6)


def test_real_digits(http_process, digits_served, raw_http, tmp_path):
    server = http_process(digits_served)
    files = []
    for i, image in enumerate(pretrained.samples("digits").images[:10, ..., 0]):
        for kind in ("PNG", "JPEG"):
            files.append(tmp_path / f"{i}.{kind}")
            files[-1].write_bytes(encoded(image, kind))
    with load(digits_served) as session:
        expected = session.predict(files)
    for file, wanted in zip(files, expected, strict=True):
        ask = raw_http.request("POST", "/v2/models/digits/classify?top=10", file.read_bytes())
        found = raw_http.ask(server.port, ask).json()["predictions"]
        assert found[0]["label"] == wanted.label
        scores = {it["index"]: it["score"] for it in found}
        np.testing.assert_allclose([scores[i] for i in range(10)], wanted.scores, atol=1e-6)


@pytest.mark.parametrize(
    ("query", "count"), [("", 3), ("?top=1", 1), ("?top=2", 2), ("?top=99", 3)]
)
def test_how_many_labels(post, query, count):
    found = post(encoded(pixels(4, 4)), PATH + query).json()["predictions"]
    assert len(found) == count
    assert found == sorted(found, key=lambda it: -it["score"])


def test_ids_and_versions(post):
    image = encoded(pixels(4, 4))
    assert post(image, PATH + "?id=a%20%C3%B1&top=1").json()["id"] == "a ñ"
    for path in ("/v2/models/two/classify", "/v2/models/two/versions/4/classify"):
        assert post(image, path).json()["model_version"] == "4"
    assert post(image, "/v2/models/two/versions/1/classify").status == 404


def test_a_compressed_image(post):
    image = encoded(pixels(40, 40), "BMP")
    plain = post(image).json()
    assert post(gzip.compress(image), content_encoding="gzip").json() == plain


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?top=0", "top is '0'"),
        ("?top=-1", "top is '-1'"),
        ("?top=1.5", "top is '1.5'"),
        ("?top=", "top is ''"),
        ("?top=" + "9" * 50, "top is '99999999999999999999999999999999'"),
        ("?top=%D9%A3", "top is"),
        ("?best=1", "'best'"),
        ("?top", "cannot be read"),
        ("?" + "top=1&" * 10, "cannot be read"),
        ("?id=" + "x" * 257, "the id"),
        ("?id=%00", "the id"),
        ("?id=a%0Ab", "the id"),
    ],
)
def test_wrong_queries(post, query, says):
    answer = post(encoded(pixels(4, 4)), PATH + query)
    assert answer.status == 400
    assert says in answer.json()["error"]


def bomb(width, height):
    """Return a PNG file of a few bytes that declares many pixels."""
    data = encoded(pixels(4, 4))
    data = data[:16] + struct.pack(">II", width, height) + data[24:]
    return data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is not an image"),
        (b"hello", "is not an image"),
        (b'{"inputs": []}', "is not an image"),
        (encoded(pixels(40, 40))[:-60], "is not a readable image"),
        (encoded(pixels(40, 40), "JPEG")[:300], "is not a readable image"),
        (encoded(pixels(4, 4, 3)), "3 channels (RGB); the model takes 1"),
        (encoded(pixels(4, 4, 4)), "4 channels"),
        (encoded(pixels(501, 500)), "501 pixels: expected at most 250,000"),
        (bomb(60_000, 60_000), "pixels: expected at most 250,000"),
        (bomb(0, 4), "is not"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "is not an image"),
    ],
    ids=range(11),
)
def test_wrong_images(post, data, says):
    answer = post(data, content_type="image/png")
    assert answer.status == 400
    text = answer.json()["error"]
    assert says in text
    assert "0x" not in text
    assert "/" not in text.replace("and/or", "")


def test_a_form_is_refused(post):
    answer = post(b"--x\r\n\r\n--x--", content_type="multipart/form-data; boundary=x")
    assert answer.status == 415
    assert "--data-binary" in answer.json()["error"]


def test_only_posted(server, raw_http):
    answer = raw_http.ask(server.port, raw_http.request("GET", PATH))
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_a_model_that_classifies_no_images(http_process, maker, onnx_model, raw_http, tmp_path):
    for field in ("classes", "preprocessing"):
        bundle = maker.write(tmp_path / f"{field}.bundle", [onnx_model], **{field: None})
        server = http_process(bundle)
        data = encoded(pixels(4, 4))
        answer = raw_http.ask(server.port, raw_http.request("POST", PATH, data))
        assert answer.status == 404
        assert "send tensors to its infer route" in answer.json()["error"]
