"""An ONNX file run under ONNX Runtime's own profiler, its nodes told apart by their place."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases import Array
from benchmarks.share_models import NetworkFile
from benchmarks.timing import Quartiles

PARTS = ("localisation", "transformer", "rest")


@dataclass(frozen=True)
class Profile:
    """Where the time of some runs went.

    Attributes:
        run_ms: Wall time of every run, as the profiler has it.
        part_ms: Of every run, the sum of the kernel times of each part's nodes.
        node_ms: Median kernel time of each of the transformer's nodes, by kind and name, the
            slowest first.
    """

    run_ms: tuple[float, ...]
    part_ms: Mapping[str, tuple[float, ...]]
    node_ms: Mapping[str, float] = field(default_factory=dict)

    def share(self, *parts: str) -> Quartiles:
        """Return which share of a run's wall time the kernels of some parts take."""
        sums = [sum(values) for values in zip(*(self.part_ms[it] for it in parts), strict=True)]
        return Quartiles.of([own / run for own, run in zip(sums, self.run_ms, strict=True)])


def session_options(threads: int, spinning: bool) -> Any:
    """Return the options with which both the timed and the profiled session are opened."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return options


def open_session(content: bytes, options: Any) -> Any:
    """Return a session on the CPU."""
    import onnxruntime as ort

    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def cut(content: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Return a file with the nodes alone that compute some tensors from others.

    Args:
        content: A file whose tensors of these names are float32.
        inputs: Names of the tensors that are given.
        outputs: Names of the tensors that are computed, in the order of the new file's outputs.
    """
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    shapes = {it.name: it for it in graph.input}
    kept = _leading_to(graph, set(outputs), set(inputs))
    nodes = [node for node in graph.node if node.name in kept]

    def described(name: str) -> Any:
        unknown = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        return shapes.get(name, unknown)

    given, wanted = ([described(name) for name in names] for names in (inputs, outputs))
    for field_of, values in ((graph.node, nodes), (graph.input, given), (graph.output, wanted)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        del field_of[:]
        field_of.extend(copies)
    shortened: bytes = model.SerializeToString()
    return shortened


def onnx_run(content: bytes, feeds: Mapping[str, Array], options: Any) -> Callable[[], list[Array]]:
    """Return a function that runs a file once, from arrays to arrays, in the order of its outputs.

    Args:
        content: The file.
        feeds: An array for every input, and others.
        options: As `session_options` returned them.
    """
    session = open_session(content, options)
    own = {item.name: feeds[item.name] for item in session.get_inputs()}
    return lambda: session.run(None, own)


class ProfiledSession:
    """A session that notes the time of every kernel.

    Args:
        file: What is run.
        image: Its input.
        options: As `session_options` returned them; they are changed.
        folder: Where the profiler and the optimizer may write.
    """

    def __init__(self, file: NetworkFile, image: Array, options: Any, folder: Path) -> None:
        optimized = folder / "optimized.onnx"
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        options.optimized_model_filepath = str(optimized)
        self._session = open_session(file.content, options)
        self._feeds = {file.image: image}
        self._parts = parts_of(file, optimized.read_bytes())

    def run(self) -> Any:
        """Run the file once."""
        return self._session.run(None, self._feeds)

    def end(self) -> Profile:
        """Return the profile of all runs so far, and stop."""
        events = json.loads(Path(self._session.end_profiling()).read_text("utf-8"))
        return read_profile(events, self._parts)


def parts_of(file: NetworkFile, optimized: bytes) -> dict[str, str]:
    """Return the part of the network that each node of the optimized graph belongs to.

    1. In the file, the transformer is what leads from theta and the image to the warped image; the
       localisation is what else leads to theta. What both need, e.g. the image in another layout,
       counts as the transformer's.
    2. In the optimized graph, a node that kept its name keeps its part.
    3. Any other, fused or put in, is the localisation's where a node of the localisation depends on
       it; the transformer's where it stands between two of its nodes; the localisation's where a
       node of the transformer depends on it; and of the rest otherwise.
    """
    import onnx

    graph = onnx.load_from_string(file.content).graph
    transformer = _leading_to(graph, {file.warped}, {file.theta})
    localisation = _leading_to(graph, {file.theta}, set()) - transformer
    known = {node.name: "rest" for node in graph.node}
    known |= dict.fromkeys(localisation, "localisation") | dict.fromkeys(transformer, "transformer")

    graph = onnx.load_from_string(optimized).graph
    parts = {node.name: known[node.name] for node in graph.node if node.name in known}
    inside = {node.name for node in graph.node if parts.get(node.name) == "transformer"}
    outputs = {name for node in graph.node if node.name in inside for name in node.output}
    inputs = {name for node in graph.node if node.name in inside for name in node.input}
    before = _leading_to(graph, inputs, set())
    localised = {node.name for node in graph.node if parts.get(node.name) == "localisation"}
    localised |= _leading_to(
        graph, {name for node in graph.node if node.name in localised for name in node.input}, set()
    )
    behind = _fed_by(graph, outputs)
    for node in graph.node:
        if node.name not in parts:
            if node.name in before and node.name in behind and node.name not in localised:
                parts[node.name] = "transformer"
            else:
                early = node.name in before | localised
                parts[node.name] = "localisation" if early else "rest"
    return parts


def _leading_to(graph: Any, tensors: set[str], stop: set[str]) -> set[str]:
    """Return the names of the nodes that compute some tensors, from others where there are such."""
    wanted, found = set(tensors), set()
    for node in reversed(graph.node):  # the nodes of a file are sorted
        if wanted.intersection(node.output) - stop:
            found.add(node.name)
            wanted.update(node.input)
    return found


def _fed_by(graph: Any, tensors: set[str]) -> set[str]:
    """Return the names of the nodes that depend on some tensors."""
    reached, found = set(tensors), set()
    for node in graph.node:
        if reached.intersection(node.input):
            found.add(node.name)
            reached.update(node.output)
    return found


def read_profile(events: Sequence[Mapping[str, Any]], parts: Mapping[str, str]) -> Profile:
    """Return what the profiler's events say.

    Raises:
        ValueError: If a kernel belongs to no node that is known, or there was no run.
    """
    suffix = "_kernel_time"
    kernels: list[tuple[str, str, float]] = []
    run_ms: list[float] = []
    part_ms: dict[str, list[float]] = {part: [] for part in PARTS}
    nodes: dict[str, list[float]] = defaultdict(list)
    for event in sorted(events, key=lambda it: it["ts"] + it["dur"]):
        if event["cat"] == "Node" and event["name"].endswith(suffix):
            name = event["name"].removesuffix(suffix)
            if name not in parts:
                raise ValueError(f"no node of the optimized graph is called {name!r}")
            kernels.append((name, event["args"]["op_name"], event["dur"] / 1000))
        elif event["name"] == "model_run":
            run_ms.append(event["dur"] / 1000)
            for part, sums in part_ms.items():
                sums.append(sum(time for name, _, time in kernels if parts[name] == part))
            for name, kind, time in kernels:
                if parts[name] == "transformer":
                    nodes[f"{kind} {name.rpartition('/')[2]}"].append(time)
            kernels.clear()
    medians = {name: Quartiles.of(times).median for name, times in nodes.items()}
    return Profile(
        run_ms=tuple(run_ms),
        part_ms={part: tuple(sums) for part, sums in part_ms.items()},
        node_ms=dict(sorted(medians.items(), key=lambda it: -it[1])),
    )
