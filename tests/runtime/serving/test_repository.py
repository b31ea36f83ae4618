"""Models by name and version, put in place, replaced and taken away as a whole."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest

from stnkit.runtime.errors import BundleError, InputError
from stnkit.runtime.serving import BundleSource, ModelOptions
from stnkit.runtime.serving.errors import InvalidRequestError, NotFoundError, NotReadyError
from stnkit.runtime.serving.repository import Repository

OPTIONS = ModelOptions(threads=1, instances=1)


@pytest.fixture
def opened():
    """Return `opened(*sources)`: a repository, closed in the end."""
    made = []

    def make(*sources):
        repository = Repository(OPTIONS)
        made.append(repository)
        repository.open(sources)
        return repository

    yield make
    for repository in made:
        repository.close(10)


@pytest.fixture
def copies(bundle_path, tmp_path):
    """Return paths of three bundles."""
    paths = [tmp_path / f"{name}.bundle" for name in "abc"]
    for path in paths:
        shutil.copytree(bundle_path, path)
    return paths


def our_threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("stnkit-")}


def test_the_name_is_the_manifests_unless_another_is_given(opened, copies):
    repository = opened(BundleSource(copies[0]), BundleSource(copies[1], "mine"))
    assert repository.get("toy").name == "toy"
    assert repository.get("mine").name == "mine"
    for name in ("nothing", "", "TOY", "../toy"):
        with pytest.raises(NotFoundError, match="there is no model"):
            repository.get(name)


def test_versions(opened, copies):
    a, b, c = copies
    repository = opened(BundleSource(a), BundleSource(b, "toy", "10"), BundleSource(c))
    assert repository.versions("toy") == ["1", "10", "11"]
    assert repository.get("toy").version == "11"  # the largest as a number
    assert repository.get("toy", "10").version == "10"
    assert repository.versions("nothing") == []
    for version in ("2", "01", "x", "1 "):
        with pytest.raises(NotFoundError, match="has no version"):
            repository.get("toy", version)


def test_one_version_twice(opened, copies):
    before = our_threads()
    with pytest.raises(InputError, match="version 2 of toy is given twice"):
        opened(BundleSource(copies[0], None, "2"), BundleSource(copies[1], "toy", "2"))
    # What was opened before the mistake was found is closed again.
    assert our_threads() == before


def test_no_bundle(opened):
    with pytest.raises(InputError, match="no bundle to serve"):
        opened()


def test_a_bundle_that_is_missing_or_damaged(opened, copies):
    with pytest.raises(InputError, match="does not exist"):
        opened(BundleSource(copies[0] / "nothing"))
    (copies[1] / "model.fp32.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx has 1 bytes"):
        opened(BundleSource(copies[0]), BundleSource(copies[1]))
    # Which of them is told, where the bundle's own message does not.
    (copies[2] / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"c\.bundle: manifest\.json: schema_version is missing"):
        opened(BundleSource(copies[0]), BundleSource(copies[2]))


def test_the_index(opened, copies):
    repository = opened(
        BundleSource(copies[0]), BundleSource(copies[1]), BundleSource(copies[2], "x")
    )
    ready = [("toy", "1", "READY", ""), ("toy", "2", "READY", ""), ("x", "1", "READY", "")]
    assert [tuple(entry.values()) for entry in repository.index()] == ready
    repository.unload("x")
    assert [tuple(entry.values()) for entry in repository.index()] == [
        *ready[:2],
        ("x", "1", "UNAVAILABLE", "unloaded"),
    ]
    assert [tuple(entry.values()) for entry in repository.index(ready_only=True)] == ready[:2]


def test_loading_again_puts_the_new_one_in_place_and_counts_on(opened, copies, maker, toy):
    repository = opened(BundleSource(copies[0]))
    old = repository.get("toy")
    old.statistics.add_failure("invalid")
    other = type(toy)(toy.w, toy.b, toy.v * 2)
    shutil.rmtree(copies[0])
    type(maker)(other).write(copies[0], [other.onnx()])
    repository.load("toy")
    new = repository.get("toy")
    assert new is not old
    assert new.statistics is old.statistics
    assert old.batcher._retired
    images = toy.images(2)
    answer = new._warm.sessions[0].run({"image": images})
    np.testing.assert_allclose(
        answer["probabilities"], other.run(images)["probabilities"], atol=1e-6
    )


@pytest.mark.parametrize("damage", ["missing", "hash", "manifest"])
def test_a_bad_new_bundle_leaves_the_old_one_serving(damage, opened, copies, caplog):
    a, b, _ = copies
    repository = opened(BundleSource(a), BundleSource(b))
    before, threads = repository.models(), our_threads()
    # The first version is good and is opened, the second is not: none is put in place.
    if damage == "missing":
        shutil.rmtree(b)
    elif damage == "hash":
        (b / "golden.npz").write_bytes((b / "golden.npz").read_bytes()[:-1] + b"x")
    else:
        (b / "manifest.json").write_text("{}")
    with pytest.raises(InvalidRequestError, match="'toy' was not loaded: ") as found:
        repository.load("toy")
    # The path is in the log, and nothing of it in what a client reads.
    assert str(b.parent) not in str(found.value)
    assert str(b) in caplog.text
    assert repository.models() == before
    assert our_threads() == threads
    assert [entry["state"] for entry in repository.index()] == ["READY", "READY"]


def test_an_unforeseen_error_leaves_the_old_one_serving_too(opened, copies, monkeypatch):
    a, b, _ = copies
    repository = opened(BundleSource(a), BundleSource(b))
    before, threads = repository.models(), our_threads()
    made = []

    def broken(*arguments):
        if made:
            raise RuntimeError("a bug")
        made.append(real(*arguments))
        return made[0]

    module = "stnkit.runtime.serving.repository.ServedModel"
    real = type(before[0])
    monkeypatch.setattr(module, broken)
    with pytest.raises(RuntimeError, match="a bug"):
        repository.load("toy")
    assert repository.models() == before
    assert our_threads() == threads


def test_unloading_and_loading(opened, copies):
    repository = opened(BundleSource(copies[0]), BundleSource(copies[1]))
    statistics = repository.get("toy", "1").statistics
    repository.unload("toy")
    repository.unload("toy")  # a second time changes nothing
    assert repository.models() == []
    assert repository.versions("toy") == []
    for version in ("", "1"):
        with pytest.raises(NotReadyError, match="is not loaded"):
            repository.get("toy", version)
    repository.load("toy")
    assert repository.versions("toy") == ["1", "2"]
    assert repository.get("toy", "1").statistics is statistics


def test_what_was_unloaded_and_cannot_be_loaded_says_so(opened, copies):
    repository = opened(BundleSource(copies[0]))
    repository.unload("toy")
    shutil.rmtree(copies[0])
    with pytest.raises(InvalidRequestError):
        repository.load("toy")
    assert repository.index()[0]["reason"] == "the last load failed"
    assert our_threads() == set()


def test_only_known_names_are_managed(opened, copies):
    repository = opened(BundleSource(copies[0]))
    for call in (repository.load, repository.unload):
        with pytest.raises(NotFoundError, match="there is no model"):
            call(str(copies[1]))


def test_closing_ends_every_thread(opened, copies):
    repository = opened(BundleSource(copies[0]), BundleSource(copies[1]))
    assert our_threads()
    repository.close()
    repository.close()
    assert our_threads() == set()
    with pytest.raises(NotReadyError):
        repository.get("toy")
