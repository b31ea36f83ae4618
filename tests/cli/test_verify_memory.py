"""`stnkit verify` runs one model after another: what one has freed is there for the next."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from stnkit.cli.commands import verify
from stnkit.cli.limits import OWN_PROCESS, collect_seldom, free_early
from stnkit.cli.main import group

# Prints what a process has taken for 16 tensors of 16 MiB, and what it keeps of that when they are
# freed. Tensors of more than 32 MiB glibc would give back at once anyway.
FREED = """
import os
from stnkit.cli.limits import free_early
free_early()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20

tf.ones([2**18])
before = resident()
tensors = [tf.ones([2**22]) for _ in range(16)]
held = resident()
del tensors
print(held - before, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere TensorFlow and malloc are others")
def test_tensorflow_gives_memory_back():
    result = subprocess.run(
        [sys.executable, "-c", FREED], capture_output=True, text=True, check=True
    )
    held, kept = map(int, result.stdout.split())
    assert held > 200
    assert kept < 100  # all of it without `free_early`


@pytest.mark.parametrize("own", [True, False])
def test_only_a_process_of_its_own_is_set_up_so(monkeypatch, own):
    calls = []
    monkeypatch.setattr(verify, "outlive_crashes", lambda: calls.append("outlive_crashes"))
    monkeypatch.setattr(verify, "free_early", lambda: calls.append("free_early"))
    monkeypatch.setattr(verify, "collect_seldom", lambda: calls.append("collect_seldom"))
    CliRunner().invoke(group, ["verify", "gone.tflite"], obj=OWN_PROCESS if own else None)
    # Behind the fork: the process that waits needs nothing of it.
    assert calls == (["outlive_crashes", "free_early", "collect_seldom"] if own else [])


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "0")
    calls = []
    monkeypatch.setattr("stnkit.cli.limits.map_large_blocks", lambda: calls.append(1))
    free_early()
    assert os.environ["TF_ONEDNN_USE_SYSTEM_ALLOCATOR"] == "0"
    assert calls == [1]


def test_collect_seldom_leaves_python_collecting():
    before = gc.get_threshold()
    try:
        collect_seldom()
        assert gc.isenabled()
        assert gc.get_threshold()[0] > 50 * before[0]
    finally:
        gc.set_threshold(*before)
