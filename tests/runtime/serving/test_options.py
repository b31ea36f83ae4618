"""How bundles are named, and which options make sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from stnkit.runtime.errors import InputError
from stnkit.runtime.serving import BundleSource, Limits, ModelOptions
from stnkit.runtime.serving.options import parse_source


@pytest.mark.parametrize(
    ("text", "name", "version", "path"),
    [
        ("a.bundle", None, None, "a.bundle"),
        ("/some/where/a.bundle", None, None, "/some/where/a.bundle"),
        ("digits=a.bundle", "digits", None, "a.bundle"),
        ("digits@3=a.bundle", "digits", "3", "a.bundle"),
        ("digits@007=a.bundle", "digits", "7", "a.bundle"),
        ("a.b-c_1=x=y", "a.b-c_1", None, "x=y"),
        # No name has a slash, a space or a word as its version.
        ("./a=b", None, None, "./a=b"),
        ("a b=c", None, None, "a b=c"),
        ("a@latest=c", None, None, "a@latest=c"),
        ("=c", None, None, "=c"),
        (f"{'n' * 129}=c", None, None, f"{'n' * 129}=c"),
    ],
)
def test_sources(text, name, version, path):
    assert parse_source(text) == BundleSource(Path(path), name, version)


def test_a_folder_whose_name_looks_like_a_source_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("size=3").mkdir()
    assert parse_source("size=3") == BundleSource(Path("size=3"))


def test_version_0():
    with pytest.raises(InputError, match="a@0=b asks for version 0: expected 1 or a larger"):
        parse_source("a@0=b")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("threads", "instances", "max_batch", "queue")),
        ("max_delay_ms", -1.0),
        ("max_delay_ms", 60_001.0),
        ("max_delay_ms", float("nan")),
        ("timeout_ms", 0.0),
        ("timeout_ms", float("inf")),
        ("timeout_ms", float("nan")),
    ],
)
def test_options_out_of_range(name, value):
    with pytest.raises(InputError, match=f"{name} is {value:g}: expected"):
        ModelOptions(**{name: value})


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_out_of_range(value):
    with pytest.raises(InputError, match=f"receive_timeout_s is {value}: expected more"):
        Limits(receive_timeout_s=value)
