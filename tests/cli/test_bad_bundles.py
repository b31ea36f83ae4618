"""Bundles and images that cannot be used: one clear line, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from stnkit.runtime.manifest import canonical_sha256

FILES = ["manifest.json", "model.fp32.tflite", "model.fp32.onnx", "golden.npz", "equivalence.json"]
COMMANDS = ["verify", "run", "bench", "inspect"]


def arguments(command, bundle):
    return [command, bundle, *(["digit.png"] if command == "run" else [])]


def rewrite(bundle, change):
    """Change the manifest and give it the right hash: only the change itself is then wrong."""
    path = bundle / "manifest.json"
    document = json.loads(path.read_text())
    del document["sha256"]
    change(document)
    document["sha256"] = canonical_sha256(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("command", COMMANDS)
def test_one_flipped_bit(command, file, bundle, digit, refused):
    content = bytearray((bundle / file).read_bytes())
    # The middle of a manifest may be white space: a flipped bit there changes nothing but a blank.
    place = content.index(b'"sha256"') + 20 if file == "manifest.json" else len(content) // 2
    content[place] ^= 1
    (bundle / file).write_bytes(content)
    refused(*arguments(command, bundle), says=[file])


@pytest.mark.parametrize("file", FILES)
def test_a_file_is_missing_truncated_or_longer(file, bundle, refused):
    content = (bundle / file).read_bytes()
    for damaged in (content[:-2], content[: len(content) // 3], b"", content + b"}"):
        (bundle / file).write_bytes(damaged)
        refused("verify", bundle, says=[file])
    (bundle / file).unlink()
    refused("verify", bundle, says=[file, "is missing"])


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("where", ["../model.fp32.tflite", "absolute", "sub/../model.fp32.tflite"])
def test_a_manifest_that_leaves_the_folder(where, command, bundle, digit, scratch, refused):
    # The file is there and its hash is right: it is the path alone that is refused.
    shutil.copy(bundle / "model.fp32.tflite", scratch / "model.fp32.tflite")
    (bundle / "sub").mkdir()
    path = str(scratch / "model.fp32.tflite") if where == "absolute" else where

    def change(document):
        document["artifacts"][0]["file"] = path

    rewrite(bundle, change)
    refused(*arguments(command, bundle), says=["manifest.json", "file"])


def test_rewriting_alone_is_accepted(bundle, stnkit):
    rewrite(bundle, lambda document: document.update(name="renamed"))
    assert json.loads(stnkit("verify", bundle, "--json").stdout)["bundle"] == "renamed"


@pytest.mark.parametrize("file", FILES)
def test_a_link_out_of_the_folder(file, bundle, scratch, refused):
    shutil.move(bundle / file, scratch / "elsewhere")
    (bundle / file).symlink_to(scratch / "elsewhere")
    refused("verify", bundle, says=[file, "link"])


@pytest.mark.parametrize("command", ["verify", "run"])
def test_no_such_bundle(command, digit, scratch, refused):
    refused(*arguments(command, "nowhere.bundle"), says=["nowhere.bundle", "does not exist"])
    refused(*arguments(command, "digit.png"), says=["digit.png", "not a folder"])
    (scratch / "empty").mkdir()
    refused(*arguments(command, "empty"), says=["manifest.json", "missing"])


@pytest.mark.parametrize("command", ["verify", "run"])
def test_no_such_artifact(command, bundle, digit, refused):
    says = ['"nonsense"', "model.fp32.tflite", "model.fp32.onnx"]
    refused(*arguments(command, bundle), "--artifact", "nonsense", says=says)


def text_file(path):
    path.write_text("I am no image")


def empty_file(path):
    path.touch()


def truncated(path):
    whole = path.with_suffix(".whole")
    noise = np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(noise).save(whole, format="PNG")
    path.write_bytes(whole.read_bytes()[:-300])
    whole.unlink()


def flipped(path):
    truncated(path)
    noise = np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(noise).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def pixels(shape):
    def write(path):
        Image.fromarray(np.full(shape, 90, np.uint8)).save(path)

    return write


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (text_file, ["is not an image"]),
        (empty_file, ["is not an image"]),
        (truncated, ["not a readable image"]),
        (flipped, ["not a readable image"]),
        (pixels((28, 28, 3)), ["3 channels", "RGB", "1 (grayscale)"]),
        (pixels((28, 28, 4)), ["4 channels", "RGBA", "1 (grayscale)"]),
    ],
    ids=["text", "empty", "truncated", "flipped bit", "RGB", "RGBA"],
)
def test_an_image_that_cannot_be_used(write, says, bundle, digit, scratch, refused):
    write(scratch / "bad.png")
    for more in ([], ["--save-warp", "seen"]):
        # The good image comes first: nothing of it may be printed or written either.
        refused("run", bundle, digit, "bad.png", *more, says=["bad.png", *says])


def test_no_such_image(bundle, digit, refused):
    refused("run", bundle, digit, "none.png", says=["none.png", "No such file"])
    refused("run", bundle, ".", says=["directory"])


def test_a_line_break_in_a_name_stays_on_one_line(bundle, scratch, refused):
    (scratch / "two\nlines.png").write_text("no image")
    refused("run", bundle, "two\nlines.png", says=["lines.png"])


def test_two_images_of_one_name(bundle, digit, scratch, refused):
    (scratch / "other").mkdir()
    shutil.copy(digit, scratch / "other" / "digit.png")
    says = ["--save-warp", "digit.warped.png"]
    refused("run", bundle, digit, "other/digit.png", "--save-warp", "seen", says=says)


def test_a_folder_for_warps_that_cannot_be_made(bundle, digit, refused):
    refused("run", bundle, digit, "--save-warp", "digit.png", says=["--save-warp", "digit.png"])


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_inspecting_a_damaged_file(suffix, bundle, scratch, refused):
    content = (bundle / f"model.fp32{suffix}").read_bytes()
    path = scratch / f"x{suffix}"
    for damaged in (b"", content[:50], content[: len(content) // 2], os.urandom(500)):
        path.write_bytes(damaged)
        refused("inspect", path.name, says=[path.name])
    refused("inspect", f"none{suffix}", says=[f"none{suffix}", "no such file"])


def test_inspecting_what_is_not_there(scratch, refused):
    refused("inspect", "none", says=["none", "no such file"])
    (scratch / "folder").mkdir()
    refused("inspect", "folder", says=["folder", "manifest.json", "saved_model.pb"])
    (scratch / "x.txt").write_text("hello")
    refused("inspect", "x.txt", says=["x.txt", ".keras", ".onnx", "bundle"])
