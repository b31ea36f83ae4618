"""An MLServer runtime for an ONNX file, as MLServer's guide to custom runtimes writes one.

Runs in an environment that has mlserver and onnxruntime, and nothing of stnkit. An input is
numbers in JSON, or, where its datatype is BYTES, one base64 text with the array's bytes: MLServer
does not know the binary tensor extension, and reading numbers is much of what it does.
"""

from __future__ import annotations

import math

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int32)": np.int32}


class OnnxModel(MLModel):
    """Runs the file that `parameters.uri` names."""

    async def load(self) -> bool:
        """Open the file."""
        extra = self.settings.parameters.extra or {}
        options = ort.SessionOptions()
        options.intra_op_num_threads = extra.get("threads", 0)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self.given = {it.name: it for it in self.session.get_inputs()}
        self.names = [it.name for it in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a request."""
        feeds = {}
        for item in payload.inputs:
            wanted = self.given[item.name]
            dtype = DTYPES[wanted.type]
            if item.datatype == "BYTES":
                raw = b"".join(Base64Codec.decode_input(item))
                rest = wanted.shape[1:]
                value = np.frombuffer(raw, dtype)
                feeds[item.name] = value.reshape(value.size // math.prod(rest), *rest)
            else:
                feeds[item.name] = NumpyCodec.decode_input(item).astype(dtype, copy=False)
        values = self.session.run(self.names, feeds)
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                NumpyCodec.encode_output(name, value)
                for name, value in zip(self.names, values, strict=True)
            ],
        )
