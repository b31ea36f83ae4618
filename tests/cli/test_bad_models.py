"""Models that cannot be converted: one clear line, and nothing left behind."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

SIZES = [1, 3, 100, 5_000, 0.5, 0.9, -1]


def convert(path, *options):
    return ["convert", path, "-o", "x.bundle", *options]


def cut(source, target, size):
    content = source.read_bytes()
    length = int(size * len(content)) if isinstance(size, float) else size
    target.write_bytes(content[:length])


@pytest.mark.parametrize("name", ["none.keras", "none.h5", "none", "no/such/model.keras"])
def test_no_such_file(name, refused):
    refused(*convert(name), says=[name, "no such file", "digits"])


@pytest.mark.parametrize("name", ["x.keras", "x.h5"])
def test_empty_file(name, scratch, refused):
    (scratch / name).touch()
    refused(*convert(name), says=[name, "is empty"])


@pytest.mark.parametrize("size", SIZES)
def test_truncated_keras(size, scratch, keras_file, refused):
    cut(keras_file, scratch / "x.keras", size)
    refused(*convert("x.keras"), says=["x.keras", "truncated"])


def test_damaged_keras(scratch, keras_file, refused):
    content = bytearray(keras_file.read_bytes())
    content[len(content) // 2] ^= 0x10
    (scratch / "x.keras").write_bytes(content)
    refused(*convert("x.keras"), says=["x.keras", "damaged"])


@pytest.mark.parametrize("name", ["x.keras", "x.h5"])
def test_random_bytes(name, scratch, refused):
    (scratch / name).write_bytes(os.urandom(20_000))
    refused(*convert(name), says=[name, "not a readable"])


def test_another_zip_file(scratch, refused):
    with zipfile.ZipFile(scratch / "x.keras", "w") as archive:
        archive.writestr("hello.txt", "hello")
    refused(*convert("x.keras"), says=["x.keras", "config.json"])


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '{"class_name": 3}', "{}", "null"])
def test_a_keras_file_with_another_configuration(text, scratch, keras_file, refused):
    with (
        zipfile.ZipFile(keras_file) as good,
        zipfile.ZipFile(scratch / "x.keras", "w") as archive,
    ):
        for name in good.namelist():
            archive.writestr(name, text if name == "config.json" else good.read(name))
    refused(*convert("x.keras"), says=["x.keras"])


def test_another_kind_of_file(scratch, refused):
    (scratch / "x.txt").write_text("hello")
    refused(*convert("x.txt"), says=["x.txt", ".keras", ".h5", "SavedModel"])


def test_a_folder_that_is_no_saved_model(scratch, refused):
    (scratch / "folder").mkdir()
    refused(*convert("folder"), says=["folder", "saved_model.pb"])


def test_a_saved_model_that_is_damaged(scratch, refused):
    (scratch / "folder").mkdir()
    (scratch / "folder" / "saved_model.pb").write_bytes(os.urandom(2_000))
    refused(*convert("folder"), says=["folder"])


def test_output_exists(scratch, refused, bundle):
    refused("convert", "digits", "-o", bundle, says=["digits.bundle exists", "--force"])
    (scratch / "file").write_text("precious")
    refused("convert", "digits", "-o", "file", says=["file exists", "--force"])


@pytest.mark.parametrize("kind", ["empty", "folder", "file", "link"])
def test_force_replaces_bundles_alone(kind, scratch, refused, bundle):
    target = scratch / "target"
    if kind == "file":
        target.write_text("precious")
    elif kind == "link":
        target.symlink_to(bundle)
    else:
        target.mkdir()
        if kind == "folder":
            (target / "thesis.txt").write_text("precious")
    refused("convert", "digits", "-o", "target", "--force", says=["target", "not a bundle"])


def test_no_folder_to_write_to(refused):
    refused("convert", "digits", "-o", "no/such/x.bundle", says=["no/such", "no such folder"])


def test_a_folder_that_may_not_be_written(scratch, refused, monkeypatch):
    (scratch / "locked").mkdir(mode=0o555)
    if os.access(scratch / "locked", os.W_OK):  # the tests run as root, whom no mode keeps out
        monkeypatch.setattr("stnkit.convert.publish.os.access", lambda path, mode: False)
    refused("convert", "digits", "-o", "locked/x.bundle", says=["locked", "cannot be written"])


def test_a_folder_that_only_the_system_refuses(refused):
    # Even root cannot make files here, and no look at the folder's mode tells.
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("there is no /proc here")
    arguments = ["convert", "digits", "--to", "tflite", "-o", "/proc/self/fd/x.bundle"]
    refused(*arguments, says=["/proc/self/fd", "the system refused"])


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (None, ["labels.csv", "stnkit samples"]),
        ("", ["labels.csv", "columns"]),
        ("a,b\n1,2\n", ["labels.csv", "columns"]),
        ("file,label\nnone.png,3\n", ["none.png"]),
        ("file,label\n../x.png,3\n", ["labels.csv", "line 2", "../x.png"]),
        ("file,label\nx.png,eleven\n", ["labels.csv", "line 2", "eleven"]),
        ("file,label\nx.png,3\n", ["x.png", "is not an image"]),
    ],
)
def test_bad_samples(table, says, scratch, refused):
    folder = scratch / "samples"
    folder.mkdir()
    (folder / "x.png").write_text("no image")
    if table is not None:
        (folder / "labels.csv").write_text(table)
    arguments = ["convert", "digits", "-o", "x.bundle", "--to", "tflite", "--samples", "samples"]
    refused(*arguments, says=says)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--mean", "1,2,3"], ["--mean", "3 numbers", "1"]),
        (["--std", "0"], ["--std", "positive"]),
        (["--std", "1,1"], ["--std", "2 numbers"]),
        (["--labels", "names.txt"], ["--labels", "2 names", "10"]),
    ],
)
def test_options_that_do_not_fit_the_model(options, says, scratch, refused):
    (scratch / "names.txt").write_text("cat\ndog\n")
    refused("convert", "digits", "-o", "x.bundle", *options, says=says)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("my_layers", ["my_layers", "module:attr"]),
        (":Doubler", ["module:attr"]),
        ("no_such_module:Doubler", ["no_such_module", "working directory"]),
        ("broken_module:Doubler", ["broken_module", "ZeroDivisionError"]),
        ("json:Doubler", ["json", "'Doubler'", "dumps"]),
    ],
)
def test_bad_custom_objects(reference, says, scratch, refused):
    (scratch / "broken_module.py").write_text("1 / 0\n")
    refused(*convert("digits", "--custom-objects", reference), says=["--custom-objects", *says])


def test_a_model_that_is_neither_by_its_content(scratch, keras_file, refused):
    """Half a `.keras` file under the other suffix: what it is, and that it is damaged."""
    whole = keras_file.read_bytes()
    (scratch / "x.h5").write_bytes(whole[: len(whole) // 2])
    refused(*convert("x.h5"), says=["x.h5", "truncated"])
