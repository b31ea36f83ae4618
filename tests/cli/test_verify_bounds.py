"""Small valid files that ask for terabytes, or never end, once they run: one line, bounded."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from stnkit.cli.limits import bounded

STNKIT = Path(sys.executable).with_name("stnkit")
MIB = 2**20
LIMIT_MIB = 512
PEAK_MIB = LIMIT_MIB + 128  # with what libraries map of files
SECONDS = 10
HUGE = 2**34  # rows of 4

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux alone")


# ONNX: x [n, 4] -> big -> y = x + max(big)

LARGEST = [
    helper.make_node("ReduceMax", ["big"], ["top"], axes=[0], keepdims=1),
    helper.make_node("Add", ["x", "top"], ["y"]),
]
ROWS = {"from": np.array([0]), "to": np.array([1]), "k": np.array([HUGE]), "four": np.array([4])}
FIRST_ROW = helper.make_node("Slice", ["x", "from", "to"], ["row"])
# [k n, 4] for an input of n rows.
SHAPE = [
    helper.make_node("Shape", ["x"], ["shape"]),
    helper.make_node("Slice", ["shape", "from", "to"], ["n"]),
    helper.make_node("Mul", ["n", "k"], ["kn"]),
    helper.make_node("Concat", ["kn", "four"], ["size"], axis=0),
]


def onnx_file(nodes, **constants):
    values = {**ROWS, **constants}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def loop(op, **attributes):
    """Return a loop of 2**62 rounds, v = op(v, v)."""
    kinds = {"round": TensorProto.INT64, "go": TensorProto.BOOL, "v": TensorProto.FLOAT}
    given = [
        helper.make_tensor_value_info(name, kind, None if name == "v" else [])
        for name, kind in kinds.items()
    ]
    made = [
        helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
    ]
    body = [
        helper.make_node("Identity", ["go"], ["go_on"]),
        helper.make_node(op, ["v", "v"], ["w"], **attributes),
    ]
    graph = helper.make_graph(body, "body", given, made)
    return helper.make_node("Loop", ["rounds", "yes", "x"], ["big"], body=graph)


def tiles(count):
    names = ["x", *(f"t{index}" for index in range(count - 1)), "big"]
    return [
        helper.make_node("Tile", [here, "twice"], [there])
        for here, there in itertools.pairwise(names)
    ]


def one(op, *inputs, **attributes):
    return helper.make_node(op, list(inputs), ["big"], **attributes)


ROUNDS = {"rounds": np.int64(2**62), "yes": np.bool_(True)}
ONNX = {
    "constant": ([one("ConstantOfShape", "size")], {"size": np.array([HUGE, 4])}),
    "expand": ([FIRST_ROW, one("Expand", "row", "size")], {"size": np.array([HUGE, 4])}),
    "expand_by_input": ([*SHAPE, FIRST_ROW, one("Expand", "row", "size")], {}),
    "pad": ([one("Pad", "x", "pads")], {"pads": np.array([HUGE, 0, 0, 0])}),
    "range": (
        [
            helper.make_node("Range", ["zero", "end", "step"], ["line"]),
            helper.make_node("Unsqueeze", ["line", "to"], ["column"]),
            helper.make_node("Cast", ["column"], ["big"], to=TensorProto.FLOAT),
        ],
        {"zero": np.int64(0), "end": np.int64(4 * HUGE), "step": np.int64(1)},
    ),
    "tiles": (tiles(40), {"twice": np.array([2, 1])}),
    "growing_loop": ([loop("Concat", axis=0)], ROUNDS),
}


# TFLite: the same

BUILTIN = schema.BuiltinOperator
OPTIONS = schema.BuiltinOptions
INT32, BOOL = schema.TensorType.INT32, schema.TensorType.BOOL


def made(kind, **fields):
    table = getattr(schema, f"{kind}T")()
    for name, value in fields.items():
        setattr(table, name, value)
    return table


class Graph:
    """A subgraph in the making; `constants` and `codes` are those of the whole file."""

    def __init__(self, constants, codes):
        self.constants, self.codes = constants, codes
        self.tensors, self.operators = [], []
        self.x = self.tensor([1, 4])

    def tensor(self, shape, kind=schema.TensorType.FLOAT32, buffer=0):
        signature = [-1, *shape[1:]] if shape and not buffer else None
        name = b"x" if not self.tensors else f"t{len(self.tensors)}".encode()
        fields = {"name": name, "shape": shape, "type": kind, "buffer": buffer, "hasRank": True}
        self.tensors.append(made("Tensor", **fields, shapeSignature=signature))
        return len(self.tensors) - 1

    def constant(self, value):
        value = np.asarray(value)
        self.constants.append(value.tobytes())
        kind = INT32 if value.dtype == np.int32 else schema.TensorType.FLOAT32
        return self.tensor(list(value.shape), kind, len(self.constants))

    def op(self, name, inputs, output, options, version=1, **fields):
        number = getattr(BUILTIN, name)
        self.codes.append((number, version))
        self.operators.append(
            made(
                "Operator",
                opcodeIndex=len(self.codes) - 1,
                inputs=inputs,
                outputs=[output],
                builtinOptionsType=getattr(OPTIONS, f"{options}Options"),
                builtinOptions=made(f"{options}Options", **fields),
            )
        )
        return output

    def table(self, output):
        fields = {"tensors": self.tensors, "operators": self.operators}
        return made("SubGraph", **fields, inputs=[self.x], outputs=[output], name=b"g")


def tflite_file(grow, inner=()):
    constants, codes = [], []
    main = Graph(constants, codes)
    big = grow(main)
    axis = main.constant(np.array([0], np.int32))
    top = main.op("REDUCE_MAX", [big, axis], main.tensor([1, 4]), "Reducer", keepDims=True)
    graphs = [main.table(main.op("ADD", [main.x, top], main.tensor([1, 4]), "Add"))]
    for make in inner:
        graph = Graph(constants, codes)
        graphs.append(graph.table(make(graph)))
    buffers = [made("Buffer")]
    buffers += [made("Buffer", data=np.frombuffer(data, np.uint8)) for data in constants]
    listed = [
        made(
            "OperatorCode", builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=version
        )
        for code, version in codes
    ]
    fields = {"version": 3, "subgraphs": graphs, "operatorCodes": listed, "buffers": buffers}
    builder = flatbuffers.Builder(1024)
    builder.Finish(made("Model", **fields).Pack(builder), b"TFL3")
    return bytes(builder.Output())


def fill(graph):
    size = graph.constant(np.array([2**29, 4], np.int32))
    value = graph.constant(np.float32(1))
    return graph.op("FILL", [size, value], graph.tensor([1, 4]), "Fill")


def fill_by_input(graph):
    shape = graph.op("SHAPE", [graph.x], graph.tensor([2], INT32), "Shape", outType=INT32)
    factors = graph.constant(np.array([2**28, 1], np.int32))
    size = graph.op("MUL", [shape, factors], graph.tensor([2], INT32), "Mul")
    value = graph.constant(np.float32(1))
    return graph.op("FILL", [size, value], graph.tensor([1, 4]), "Fill")


def tile(graph):
    times = graph.constant(np.array([2**28, 1], np.int32))
    return graph.op("TILE", [graph.x, times], graph.tensor([1, 4]), "Tile")


def broadcast(graph):
    size = graph.constant(np.array([2**29, 4], np.int32))
    row = graph.constant(np.ones((1, 4), np.float32))
    return graph.op("BROADCAST_TO", [row, size], graph.tensor([1, 4]), "BroadcastTo", version=2)


def forever(graph):
    bodies = {"condSubgraphIndex": 1, "bodySubgraphIndex": 2}
    return graph.op("WHILE", [graph.x], graph.tensor([1, 4]), "While", **bodies)


def always(graph):
    same = graph.tensor([1, 4], BOOL)
    graph.op("GREATER_EQUAL", [graph.x, graph.x], same, "GreaterEqual")
    axes = graph.constant(np.array([0, 1], np.int32))
    return graph.op("REDUCE_ANY", [same, axes], graph.tensor([], BOOL), "Reducer")


def double(graph):
    return graph.op("ADD", [graph.x, graph.x], graph.tensor([1, 4]), "Add")


def grow(graph):
    return graph.op(
        "CONCATENATION", [graph.x, graph.x], graph.tensor([2, 4]), "Concatenation", axis=0
    )


TFLITE = {
    "fill": (fill,),
    "fill_by_input": (fill_by_input,),
    "tile": (tile,),
    "broadcast": (broadcast,),
    "growing_while": (forever, [always, grow]),
}


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def peak_kib(pid):
    """Return the largest size that a process, or the child it waits for, has had so far."""
    found = 0
    for process in (pid, *children(pid)):
        status = Path(f"/proc/{process}/status").read_text()
        found += sum(int(size) for size in re.findall(r"VmHWM:\s+(\d+) kB", status))
    return found


@pytest.fixture
def verify(scratch):
    """Return `verify(*arguments)`: run it as a process; what came of it, and what it took."""

    def run(*arguments):
        command = [STNKIT, "verify", *(str(argument) for argument in arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        start, peak = time.monotonic(), 0
        with subprocess.Popen(command, **pipes) as process:
            while process.poll() is None:
                # Not getrusage: what it says of a child holds the size of this very process.
                with contextlib.suppress(OSError):
                    peak = max(peak, peak_kib(process.pid))
                assert time.monotonic() - start < 60, "it does not end"
                time.sleep(0.005)
            stdout, stderr = process.communicate()
        return SimpleNamespace(
            code=process.returncode,
            stdout=stdout,
            stderr=stderr,
            seconds=time.monotonic() - start,
            peak_mib=peak / 1024,
            left=sorted(path.name for path in scratch.rglob("*")),
        )

    return run


def check_out_of_memory(verify, name, content):
    Path(name).write_bytes(content)
    assert len(content) < 2000
    result = verify(name, name, "--memory-limit", LIMIT_MIB, "--html", "r.html")
    assert (result.code, result.stdout) == (2, ""), result
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {name}: "), line
    for part in ("failed to run the model", "not enough memory", "512 MiB", "--memory-limit"):
        assert part in line, line
    assert result.peak_mib < PEAK_MIB
    assert result.seconds < SECONDS
    assert result.left == [name]


@pytest.mark.parametrize("name", ONNX)
def test_onnx_that_asks_for_more_memory_than_there_is(name, verify):
    nodes, constants = ONNX[name]
    check_out_of_memory(verify, "x.onnx", onnx_file([*nodes, *LARGEST], **constants))


@pytest.mark.parametrize("name", TFLITE)
def test_tflite_that_asks_for_more_memory_than_there_is(name, verify):
    check_out_of_memory(verify, "x.tflite", tflite_file(*TFLITE[name]))


def test_without_an_option_what_is_available_is_the_limit(verify):
    content = onnx_file([one("ConstantOfShape", "size"), *LARGEST], size=np.array([HUGE, 4]))
    Path("x.onnx").write_bytes(content)
    result = verify("x.onnx", "x.onnx")
    assert (result.code, result.stdout) == (2, ""), result
    # How much it asked for ONNX Runtime tells of its arena alone, without which it runs here.
    assert "not enough memory for ConstantOfShape (limit " in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.peak_mib < PEAK_MIB


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_a_model_that_never_ends(format, verify):
    endless = (
        onnx_file([loop("Add"), *LARGEST], **ROUNDS)
        if format == "onnx"
        else tflite_file(forever, [always, double])
    )
    Path("x").write_bytes(endless)
    result = verify("x", "x", "--time-limit", 1, "--html", "r.html", "--junit", "r.xml")
    assert (result.code, result.stdout) == (2, ""), result
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for part in ("has not ended within 1 s", "for ever", "--time-limit"):
        assert part in line
    assert result.seconds < SECONDS
    assert result.peak_mib < PEAK_MIB
    assert result.left == ["x"]


def test_a_crash_is_one_line(verify):
    """As TensorFlow crashes where an allocation fails that it does not check."""
    Path("crashing.py").write_text("import os\nos.abort()\n")
    result = verify("digits", "digits", "--custom-objects", "crashing:Layer", "--html", "r.html")
    assert (result.code, result.stdout) == (2, ""), result
    (line,) = result.stderr.splitlines()
    for part in ("error: ", "crashed (SIGABRT)", "damaged", "--memory-limit"):
        assert part in line
    assert "r.html" not in result.left


def test_nothing_goes_on_when_the_command_is_killed():
    Path("x").write_bytes(onnx_file([loop("Add"), *LARGEST], **ROUNDS))
    with subprocess.Popen([STNKIT, "verify", "x", "x"]) as process:
        end = time.monotonic() + SECONDS
        while not (found := children(process.pid)):
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.5)  # until it says that it is to end with its parent
        process.kill()
    child = Path(f"/proc/{found[0]}/stat")
    with contextlib.suppress(OSError):  # gone already
        while child.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < end
            time.sleep(0.01)


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_a_model_that_is_well_fits_the_least_memory(format, digits_bundle, verify):
    file = digits_bundle / f"model.fp32.{format}"
    result = verify(file, file, "--memory-limit", 256, "--time-limit", 60)
    assert (result.code, result.stderr) == (0, ""), result


def test_a_bundle_alone_is_bounded_too(bundle, refused, monkeypatch):
    def short_of_memory(*arguments, **options):
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr("stnkit.runtime.verify", short_of_memory)
    refused("verify", bundle, says=["not enough memory", "9 GiB", "--memory-limit"])


def test_the_bounds_end_with_what_they_bound(monkeypatch):
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded(60, 4096):
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] == 4096 * MIB
        with bounded(60, 8192):  # no wider than one that is there already
            assert resource.getrlimit(resource.RLIMIT_DATA)[0] == 4096 * MIB
    with bounded(60, None):
        soft = resource.getrlimit(resource.RLIMIT_DATA)[0]
        assert 64 * MIB < soft < os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES") * 2
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_memory_is_left_alone_where_it_cannot_be_bounded(
    digits_bundle, refused, stnkit, monkeypatch
):
    monkeypatch.setattr("stnkit.cli.limits.sys.platform", "darwin")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded(60, None):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
    refused("verify", digits_bundle, "--memory-limit", 4096, says=["--memory-limit 4096", "Linux"])


@pytest.mark.parametrize("option", ["--time-limit 0", "--memory-limit 255", "--memory-limit x"])
def test_limits_that_are_none(option, refused):
    refused("verify", "a", "b", *option.split(), says=[option.split()[0]])
