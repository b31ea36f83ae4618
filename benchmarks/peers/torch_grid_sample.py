"""PyTorch's affine_grid and grid_sample, run by PyTorch, and exported to ONNX.

Images are `[batch, channels, height, width]` here, as PyTorch has them: nothing is transposed
within the time that is taken.
"""

from __future__ import annotations

import logging
import warnings
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.cases import Array, Case, basis
from benchmarks.peers.contender import Contender, Job, Prepared, UnavailableError
from benchmarks.peers.runtimes import run_onnx


def _torch() -> Any:
    try:
        return import_module("torch")
    except ModuleNotFoundError as exc:
        raise UnavailableError("torch is not installed") from exc


def torch_module(case: Case) -> Any:
    """Return the `torch.nn.Module` from image and theta to the warped image.

    A spline has no grid generator in PyTorch: its grid is the product with a stored basis.
    """
    torch = _torch()
    functional = torch.nn.functional
    base: Any = torch.nn.Module
    batch, height, width, channels = case.shape

    class Affine(base):
        def forward(self, image: Any, theta: Any) -> Any:
            grid = functional.affine_grid(
                theta, [batch, channels, height, width], align_corners=False
            )
            return _sample(image, grid)

    class Spline(base):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("basis", torch.from_numpy(basis(case).astype(np.float32)))

        def forward(self, image: Any, theta: Any) -> Any:
            grid = torch.matmul(self.basis, theta).reshape(batch, height, width, 2)
            return _sample(image, grid)

    def _sample(image: Any, grid: Any) -> Any:
        return functional.grid_sample(
            image, grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )

    return Affine() if case.transform == "affine" else Spline()


def _tensors(job: Job) -> tuple[Any, Any]:
    torch = _torch()
    image = np.ascontiguousarray(job.inputs.image.transpose(0, 3, 1, 2))
    return torch.from_numpy(image), torch.from_numpy(job.inputs.theta)


def _channels_last(tensor: Any) -> Array:
    return np.asarray(tensor.detach().numpy()).transpose(0, 2, 3, 1)


def _eager(job: Job) -> Prepared:
    torch = _torch()
    torch.set_num_threads(job.threads)
    module, (image, theta) = torch_module(job.case).eval(), _tensors(job)

    def run() -> Any:
        with torch.inference_mode():
            return module(image, theta)

    return Prepared(run, lambda warped: {"warped": _channels_last(warped)})


def _training(job: Job) -> Prepared:
    torch = _torch()
    torch.set_num_threads(job.threads)
    module, (image, theta) = torch_module(job.case), _tensors(job)
    image.requires_grad_()
    theta.requires_grad_()
    upstream = torch.from_numpy(np.ascontiguousarray(job.inputs.upstream.transpose(0, 3, 1, 2)))

    def run() -> Any:
        warped = module(image, theta)
        return warped, *torch.autograd.grad((upstream * warped).sum(), (image, theta))

    def answer(results: Any) -> dict[str, Array]:
        warped, by_image, by_theta = results
        return {
            "warped": _channels_last(warped),
            "image_gradient": _channels_last(by_image),
            "theta_gradient": by_theta.numpy(),
        }

    return Prepared(run, answer)


def _exported(job: Job) -> Prepared:
    torch = _torch()
    try:
        import_module("onnxscript")
    except ModuleNotFoundError as exc:
        raise UnavailableError(
            "onnxscript is not installed, without which torch exports no ONNX"
        ) from exc
    module = torch_module(job.case).eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside of torch
        program = torch.onnx.export(module, _tensors(job), dynamo=True, verbose=False)
    content: bytes = program.model_proto.SerializeToString()
    return run_onnx(content, job, channels_first=True)


PYTORCH = Contender(
    "PyTorch grid_sample",
    {"onnx": _exported, "tensorflow": _eager, "tensorflow-training": _training},
)
