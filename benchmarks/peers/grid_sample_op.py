"""ONNX's GridSample between two transpositions, with a stored grid: the op as it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.cases import Case, basis
from benchmarks.peers.contender import Contender
from benchmarks.peers.runtimes import run_onnx

OPSET = 16
"""The first that has GridSample."""


def grid_sample_model(case: Case) -> bytes:
    """Return the file: grid product, NHWC to NCHW, GridSample, and back.

    Source:
        ONNX operator GridSample, opset 16.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    batch, height, width, _ = case.shape
    stored = basis(case).astype(np.float32)
    constants: dict[str, Any] = {
        "stored": stored,
        "grid_shape": np.array([batch, height, width, 2], np.int64),
    }
    parameters = "theta"
    nodes = []
    if case.transform == "affine":
        nodes.append(helper.make_node("Transpose", ["theta"], ["parameters"], perm=[0, 2, 1]))
        parameters = "parameters"
    nodes += [
        helper.make_node("MatMul", ["stored", parameters], ["points"]),
        helper.make_node("Reshape", ["points", "grid_shape"], ["grid"]),
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "GridSample",
            ["planes", "grid"],
            ["sampled"],
            mode="bilinear",
            padding_mode="zeros",
            align_corners=0,
        ),
        helper.make_node("Transpose", ["sampled"], ["warped"], perm=[0, 2, 3, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "grid_sample",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, case.shape),
            helper.make_tensor_value_info("theta", TensorProto.FLOAT, [batch, *case.theta_shape]),
        ],
        [helper.make_tensor_value_info("warped", TensorProto.FLOAT, case.shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


GRID_SAMPLE = Contender(
    "ONNX GridSample op", {"onnx": lambda job: run_onnx(grid_sample_model(job.case), job)}
)
