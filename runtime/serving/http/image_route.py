"""Classify an image file that a client posts: decoding and preprocessing happen here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from stnkit.runtime.errors import BackendError, InputError
from stnkit.runtime.images import predictions_of
from stnkit.runtime.preprocess import decode_image
from stnkit.runtime.purposes import usable_cores
from stnkit.runtime.serving.core import ServingCore
from stnkit.runtime.serving.errors import (
    DeadlineError,
    InferenceError,
    InvalidRequestError,
    NotFoundError,
    UnsupportedError,
)
from stnkit.runtime.serving.inference import InferRequest, RequestedOutput

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from stnkit.runtime.manifest_records import Preprocessing
    from stnkit.runtime.serving.served_model import ServedModel

__all__ = ["ImageRoute"]

_TOP = 5
_ID = re.compile(r"[^\x00-\x1f\x7f]{1,256}")


class ImageRoute:
    """Decodes images beside the event loop, a few at a time.

    Args:
        core: the models.
    """

    def __init__(self, core: ServingCore) -> None:
        self._core = core
        self._decoders: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """Give the threads back once the images are done with that they decode; more can come."""
        decoders, self._decoders = self._decoders, None
        if decoders is not None:
            decoders.shutdown()

    async def classify(
        self,
        model: ServedModel,
        body: bytes,
        content_type: bytes | None,
        query: bytes,
        carrier: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return the likeliest labels of one image.

        Args:
            model: the model.
            body: the content of a BMP, GIF, JPEG, PNG, PPM, TIFF or WebP file.
            content_type: value of `Content-Type`; what the body is, its own bytes say.
            query: `top=N` for another number of labels than 5, `id=TEXT` to be echoed.
            carrier: what the client sent to name its own span.

        Returns:
            `model_name`, `model_version`, `id` where one was given, and `predictions`: `index`,
            `label` and `score` in [0, 1] each, the likeliest first.

        Raises:
            InvalidRequestError: not a readable image, of another kind than the model takes, or a
                wrong query.
            NotFoundError: the model does not classify images.
            UnsupportedError: a form and not the file itself.
            ServingError: see `ServingCore.infer`.
        """
        manifest = model.manifest
        preprocessing, classes = manifest.preprocessing, manifest.classes
        inputs = manifest.signature.inputs
        if preprocessing is None or classes is None or len(inputs) != 1 or not model.batchable:
            raise NotFoundError(
                f"the model {model.name!r} has no preprocessing or no labels: send tensors to its "
                "infer route"
            )
        if (content_type or b"").lower().startswith(b"multipart/"):
            raise UnsupportedError(
                "the image came in a form: send the file itself, as curl --data-binary @image.png"
            )
        top, request_id = _options(query, len(classes.labels))
        image = await self._decode(body, preprocessing)
        spec = inputs[0]
        response = await self._core.infer(
            InferRequest(
                model.name,
                model.version,
                {preprocessing.input: image[None].astype(spec.dtype, copy=False)},
                [RequestedOutput(classes.output)],
                carrier=carrier,
            )
        )
        try:
            (prediction,) = predictions_of(response.outputs[0].array, classes)
        except BackendError as exc:
            raise InferenceError("the model's scores are not finite numbers") from exc
        order = sorted(range(len(prediction.scores)), key=lambda i: -prediction.scores[i])[:top]
        answer: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
        if request_id:
            answer["id"] = request_id
        answer["predictions"] = [
            {"index": i, "label": classes.labels[i], "score": prediction.scores[i]} for i in order
        ]
        return answer

    async def _decode(self, body: bytes, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
        pixels_max = self._core.limits.image_pixels_max
        if self._decoders is None:
            # An image of the largest size takes some hundred megabytes while it is decoded. The
            # threads are its own: a client that goes away frees a place only once its image is
            # done with.
            self._decoders = ThreadPoolExecutor(usable_cores(), thread_name_prefix="stnkit-image")
        decoding = asyncio.get_running_loop().run_in_executor(
            self._decoders, lambda: decode_image(body, preprocessing, pixels_max=pixels_max)
        )
        try:
            async with asyncio.timeout(self._core.options.timeout_ms / 1e3):
                return await decoding
        except TimeoutError as exc:
            raise DeadlineError(
                "the request's time was over before its image was decoded: send fewer at once"
            ) from exc
        except InputError as exc:
            raise InvalidRequestError(str(exc)) from exc


def _options(query: bytes, labels: int) -> tuple[int, str]:
    try:
        fields = parse_qs(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(query),
            max_num_fields=4,
        )
    except ValueError as exc:  # not ASCII, not UTF-8 once unquoted, too many, or no pairs
        raise InvalidRequestError("the query cannot be read: expected ?top=N or ?id=TEXT") from exc
    unknown = sorted(set(fields) - {"top", "id"})
    if unknown:
        raise InvalidRequestError(f"the query has {unknown[0][:32]!r}: expected top or id")
    top = fields.get("top", [str(_TOP)])[-1]
    if not (top.isascii() and top.isdigit() and len(top) < 10 and int(top) > 0):
        raise InvalidRequestError(f"top is {top[:32]!r}: expected a whole number of at least 1")
    request_id = fields.get("id", [""])[-1]
    if request_id and not _ID.fullmatch(request_id):
        raise InvalidRequestError("the id is not 1 to 256 characters without control characters")
    return min(int(top), labels), request_id
