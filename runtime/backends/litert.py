"""Run TFLite files with LiteRT's interpreter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

import ai_edge_litert
import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from stnkit.runtime.backends.failure import failure
from stnkit.runtime.backends.registry import CudaSettings, RunnerFacts, TensorNames
from stnkit.runtime.errors import BackendError, InputError
from stnkit.runtime.json_reader import join_names
from stnkit.runtime.tflite_drive import with_driven_tensors
from stnkit.runtime.tflite_file import with_extra_outputs

__all__ = ["LiteRTRunner", "open_runner"]


def open_runner(
    model: bytes,
    names: TensorNames,
    *,
    want_taps: bool,
    drives: Collection[str] = (),
    threads: int | None,
    pool: bool = True,
    spinning: bool = False,
    cuda: CudaSettings | None = None,
) -> LiteRTRunner:
    """Open a TFLite file; see `stnkit.runtime.backends.open_runner`.

    Args:
        model: the file's content.
        names: where the signature's tensors are found in it.
        want_taps: whether the taps come out too.
        drives: taps that are given and not computed.
        threads: number of threads that share one run; None leaves it to LiteRT.
        pool: makes no difference: an interpreter plans its memory once for each shape of inputs.
        spinning: makes no difference: LiteRT decides that itself.
        cuda: has to be None.

    Raises:
        BackendError: LiteRT refuses the model, or it has no tensor of a given name.
        InputError: a damaged file, a tap that is not in it, or a GPU.
    """
    if cuda is not None:
        raise InputError("LiteRT runs on the CPU alone: use an ONNX file on a GPU")
    inputs, outputs = dict(names.inputs), dict(names.outputs)
    if drives:
        model = with_driven_tensors(model, [names.taps[tap] for tap in drives])
        inputs.update({tap: names.taps[tap] for tap in drives})
    if want_taps:
        taps = {name: tensor for name, tensor in names.taps.items() if name not in drives}
        model = with_extra_outputs(model, taps.values())
        outputs.update(taps)
    return LiteRTRunner(model, inputs, outputs, threads)


class LiteRTRunner:
    """One interpreter behind a lock, because an interpreter serves one thread at a time.

    Args:
        model: the file's content.
        inputs: signature name -> tensor name in the file.
        outputs: signature or tap name -> tensor name in the file; bound by name, because the
            order of a TFLite file's outputs is not the signature's.
        threads: number of threads that share one run; None leaves it to LiteRT.
    """

    facts = RunnerFacts()

    def __init__(
        self,
        model: bytes,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        threads: int | None,
    ) -> None:
        self._lock = threading.Lock()
        try:
            interpreter = Interpreter(model_content=model, num_threads=threads)
            inputs_there = interpreter.get_input_details()
            if all(size >= 0 for item in inputs_there for size in item["shape_signature"]):
                interpreter.allocate_tensors()
            # Otherwise the first run allocates: the placeholder size of an open dimension is 1,
            # where a 3x3 convolution of an image of open size already fails.
            outputs_there = interpreter.get_output_details()
        except Exception as exc:  # the boundary: LiteRT raises ValueError and RuntimeError at least
            raise failure("LiteRT refused the model", exc) from exc
        self._interpreter: Any = interpreter
        self._inputs = _bind(inputs, inputs_there, "input")
        self._outputs = _bind(outputs, outputs_there, "output")
        self._shapes = {
            int(item["index"]): (
                tuple(int(size) for size in item["shape"])
                if min(item["shape_signature"], default=0) >= 0
                else (-1,)
            )
            for item in inputs_there
        }

    @property
    def version(self) -> str:
        """Version of ai-edge-litert."""
        return str(ai_edge_litert.__version__)

    def run(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        out: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run the model; see `stnkit.runtime.backends.Runner`.

        Args:
            inputs: signature name -> array.
            out: name -> array that it is written to.

        Raises:
            BackendError: LiteRT failed, or the runner is closed.
        """
        with self._lock:
            interpreter = self._interpreter
            if interpreter is None:
                raise BackendError("the LiteRT runner is closed: open the model again")
            try:
                changed = {
                    index: inputs[name].shape
                    for name, index in self._inputs.items()
                    if inputs[name].shape != self._shapes[index]
                }
                if changed:
                    # Forgotten until all of it worked: after a failure the next run resizes again.
                    self._shapes.update(dict.fromkeys(changed, (-1,)))
                    for index, shape in changed.items():
                        # strict: only a dimension that the file leaves open may change.
                        interpreter.resize_tensor_input(index, shape, strict=True)
                    interpreter.allocate_tensors()
                    self._shapes.update(changed)
                for name, index in self._inputs.items():
                    interpreter.set_tensor(index, np.asarray(inputs[name], order="C"))
                interpreter.invoke()
                # get_tensor copies; a view would change under the caller with the next run.
                if out is None:
                    return {
                        name: interpreter.get_tensor(index) for name, index in self._outputs.items()
                    }
                return {
                    name: _copied(interpreter.tensor(index), name, out[name])
                    if name in out
                    else interpreter.get_tensor(index)
                    for name, index in self._outputs.items()
                }
            except BackendError:
                raise
            except Exception as exc:  # the boundary, as above
                raise failure("LiteRT failed to run the model", exc) from exc

    def close(self) -> None:
        """Give the interpreter's memory back, once a run in progress has ended."""
        with self._lock:
            self._interpreter = None


def _copied(
    tensor: Callable[[], npt.NDArray[Any]], name: str, target: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Copy a tensor once, into an array that is there already.

    The view is gone when this returns: while one lives, an interpreter refuses to run.
    """
    view = tensor()
    # copyto would repeat a smaller tensor, and cast.
    if view.shape != target.shape or view.dtype != target.dtype:
        raise BackendError(
            f'"{name}" came as {view.dtype} {list(view.shape)}: the array to write it to is '
            f"{target.dtype} {list(target.shape)}"
        )
    np.copyto(target, view)
    return target


def _bind(names: Mapping[str, str], details: list[dict[str, Any]], what: str) -> dict[str, int]:
    there: dict[str, list[int]] = {}
    for item in details:
        there.setdefault(str(item["name"]), []).append(int(item["index"]))
    bound = {}
    for name, tensor in names.items():
        found = set(there.get(tensor, []))
        if len(found) != 1:
            have = "several tensors" if found else "no tensor"
            raise BackendError(
                f'the TFLite file has {have} "{tensor}" for the {what} "{name}": expected one of '
                f"{join_names(sorted(there))}"
            )
        bound[name] = found.pop()
    return bound
