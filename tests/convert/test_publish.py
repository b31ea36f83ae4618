"""A bundle appears whole or not at all, whenever its writer dies."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stnkit.convert.publish import check_target, publish
from stnkit.runtime import open_bundle, verify
from stnkit.runtime.errors import InputError
from stnkit.runtime.manifest import (
    Artifact,
    FileRecord,
    Manifest,
    MeasuredErrors,
    Signature,
    Source,
    TensorSpec,
    Tolerance,
    Tolerances,
    read_manifest,
    write_manifest,
)

LETTERS = "abc"
FILES = ["equivalence.json", "golden.npz", "manifest.json", "model.fp32.onnx"]


def files(letter, size=200_000):
    """Return the files of a bundle whose manifest is right, and whose contents are one letter."""
    content = letter.encode() * size
    record = ("0" * 64, size)
    tolerance = Tolerance(1e-5)
    manifest = Manifest(
        name=letter,
        created_by={"stnkit": "0"},
        source=Source("m.keras", "keras"),
        signature=Signature(
            (TensorSpec("x", "float32", ("batch", 2)),), (TensorSpec("y", "float32", ("batch", 2)),)
        ),
        taps=(),
        preprocessing=None,
        classes=None,
        artifacts=(
            Artifact(
                *("model.fp32.onnx", "onnx", "fp32", "gather", 17, "dynamic", *record),
                *({"x": "x"}, {"y": "y"}, {}, MeasuredErrors(0.0, None, None)),
            ),
        ),
        golden=FileRecord("golden.npz", *record),
        equivalence=FileRecord("equivalence.json", *record),
        tolerances=Tolerances(tolerance, tolerance, tolerance),
    )
    others = [name for name in FILES if name != "manifest.json"]
    return {**dict.fromkeys(others, content), "manifest.json": write_manifest(manifest)}


def letters_in(folder):
    """Return which letters a folder's files hold; every file must be there, and full."""
    assert sorted(path.name for path in folder.iterdir()) == FILES
    others = [name for name in FILES if name != "manifest.json"]
    contents = {(folder / name).read_bytes() for name in others}
    assert {len(content) for content in contents} == {200_000}
    named = read_manifest((folder / "manifest.json").read_bytes()).name
    return {named, *(content[:1].decode() for content in contents)}


def test_new_bundle(tmp_path):
    publish(tmp_path / "b", files("a"), force=False)
    assert letters_in(tmp_path / "b") == {"a"}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_existing_bundle_needs_force(tmp_path):
    publish(tmp_path / "b", files("a"), force=False)
    with pytest.raises(InputError, match="exists: choose another name, or pass --force"):
        publish(tmp_path / "b", files("b"), force=False)
    assert letters_in(tmp_path / "b") == {"a"}
    publish(tmp_path / "b", files("b"), force=True)
    assert letters_in(tmp_path / "b") == {"b"}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("kind", ["file", "folder", "other manifest", "damaged", "link"])
def test_force_replaces_bundles_alone(kind, tmp_path):
    target = tmp_path / "b"
    if kind == "file":
        target.write_text("precious")
    elif kind == "folder":
        target.mkdir()
        (target / "thesis.txt").write_text("precious")
    elif kind == "other manifest":
        target.mkdir()
        (target / "manifest.json").write_text('{"name": "a browser extension"}')
    elif kind == "damaged":
        publish(target, files("a"), force=False)
        (target / "manifest.json").write_text("{")
    else:
        publish(tmp_path / "real", files("a"), force=False)
        target.symlink_to(tmp_path / "real")
    with pytest.raises(InputError, match="is not a bundle: --force"):
        publish(target, files("b"), force=True)
    assert target.exists()


def test_force_keeps_what_somebody_put_into_a_bundle(tmp_path):
    publish(tmp_path / "b", files("a"), force=False)
    (tmp_path / "b" / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match=r"holds 'notes\.txt', which is not the bundle's"):
        publish(tmp_path / "b", files("b"), force=True)
    assert (tmp_path / "b" / "notes.txt").read_text() == "precious"


def test_names_with_the_signs_of_patterns(tmp_path):
    """A draft that a killed writer left is found and removed by its exact name."""
    abandoned = tmp_path / ".[1]*.draft-x"
    other = tmp_path / ".[1]abc.draft-x"
    for draft in (abandoned, other):
        draft.mkdir()
        (draft / ".writing").touch()
    publish(tmp_path / "[1]*", files("a"), force=False)
    assert not abandoned.exists()
    assert other.exists()


def test_parent_must_be_a_folder_that_exists(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        check_target(tmp_path / "nowhere" / "b", force=False)


def test_a_failing_disk_leaves_nothing(tmp_path, monkeypatch):
    publish(tmp_path / "b", files("a"), force=False)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        publish(tmp_path / "b", files("b"), force=True)
    assert letters_in(tmp_path / "b") == {"a"}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_without_atomic_exchange_the_new_one_still_comes_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("stnkit.convert.publish._exchange", lambda first, second: False)
    publish(tmp_path / "b", files("a"), force=False)
    publish(tmp_path / "b", files("b"), force=True)
    assert letters_in(tmp_path / "b") == {"b"}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_two_writers_at_once(tmp_path):
    """One of them wins; the other is told; what is there is whole."""
    outcomes = []

    def write(letter):
        try:
            publish(tmp_path / "b", files(letter), force=False)
            outcomes.append(letter)
        except InputError:
            outcomes.append(None)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in LETTERS]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    winners = [letter for letter in outcomes if letter]
    assert len(winners) == 1
    assert letters_in(tmp_path / "b") == set(winners)


WRITER = """
import itertools, pathlib, pickle, sys
from stnkit.convert.publish import publish
target = pathlib.Path(sys.argv[1])
versions = pickle.loads(pathlib.Path(sys.argv[2]).read_bytes())
print("ready", flush=True)
for files in itertools.cycle(versions):
    publish(target, files, force=True)
"""


def test_killed_at_any_moment_of_publishing(tmp_path):
    """Thirty writers are killed while they replace a bundle as fast as they can."""
    target = tmp_path / "b"
    versions = tmp_path / "versions"
    versions.write_bytes(pickle.dumps([files(letter) for letter in LETTERS]))
    dice = random.Random(5)
    for _ in range(30):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(target), str(versions)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0.0, 0.05))
        writer.kill()
        writer.wait()
        writer.stdout.close()
        if target.exists():
            assert len(letters_in(target)) == 1
    publish(target, files("a"), force=target.exists())
    # The next writer also removes what the killed ones left beside the bundle.
    left = [path for path in tmp_path.iterdir() if path != target and (path / ".writing").exists()]
    assert left == []


STAGES = ["freezing the model", "exporting to ONNX", "classifying", "publishing the bundle"]


@pytest.mark.parametrize("old_bundle", [False, True])
def test_convert_killed_at_several_moments(old_bundle, tmp_path):
    """`stnkit convert`, killed as it announces each stage and a moment later."""
    samples = tmp_path / "samples"
    stnkit = [sys.executable, "-m", "stnkit.cli"]
    subprocess.run([*stnkit, "samples", "digits", "-o", str(samples)], check=True)
    target = tmp_path / "digits.bundle"
    command = [*stnkit, "convert", "digits", "-o", str(target), "--samples", str(samples)]
    before = None
    if old_bundle:
        subprocess.run([*command, "--to", "onnx"], check=True, capture_output=True)
        before = {path.name: path.read_bytes() for path in target.iterdir()}
        command.append("--force")
    for stage in STAGES[2:] if old_bundle else STAGES:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if line.startswith(stage):
                break
        else:
            pytest.fail(f"stnkit convert never said {stage!r}")
        if stage == "publishing the bundle":
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
        if before is None and not target.exists():
            continue
        bundle = open_bundle(target)  # checks every hash
        now = {path.name: path.read_bytes() for path in target.iterdir()}
        if len(bundle.manifest.artifacts) == 1:
            assert now == before
        else:  # publishing was faster than the signal: then the new one is whole
            assert stage == "publishing the bundle"
            assert verify(bundle).passed


def test_names_of_drafts_are_hidden(tmp_path, monkeypatch):
    seen = []
    real = Path.rename

    def spy(self, target):
        seen.extend(path.name for path in tmp_path.iterdir())
        return real(self, target)

    monkeypatch.setattr(Path, "rename", spy)
    publish(tmp_path / "b", files("a"), force=False)
    assert seen
    assert all(name.startswith(".b.draft-") for name in seen)
