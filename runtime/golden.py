"""Read and write `golden.npz`: probes with the source model's answers.

Members are `<case>/inputs/<name>.npy`, `<case>/outputs/<name>.npy` and `<case>/taps/<name>.npy`.
A tensor name may itself contain "/" and ":"; a case name may not.

The reader does not use `numpy.load`: that allocates what a header declares, and understands more
kinds of member than a golden file has.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stnkit.runtime.errors import BundleError, one_line
from stnkit.runtime.json_reader import join_names
from stnkit.runtime.signature import Signature, TapSpec, TensorSpec, shape_problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    import numpy as np
    import numpy.typing as npt

    class _Probed(Protocol):
        @property
        def signature(self) -> Signature: ...

        @property
        def taps(self) -> tuple[TapSpec, ...]: ...


__all__ = ["GOLDEN_EXPANDED_BYTES_MAX", "GoldenCase", "read_golden", "write_golden"]

GOLDEN_EXPANDED_BYTES_MAX = 512 * 2**20
"""Bounds what a golden file may expand to. A batch of four 224 px colour images with its answers
is 5 MB; deflate reaches 1000:1, so that without a bound 1 MB on disk could ask for 1 GB."""

_MEMBERS_MAX = 10_000
_CASE_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}"
_GROUPS = ("inputs", "outputs", "taps")
_MAGIC = b"\x93NUMPY\x01\x00"
# Exactly what NumPy writes for a plain array in C order; anything else (a record, an object, a
# Fortran order, a later version) is not a golden file, and nothing is evaluated.
_HEADER_PATTERN = (
    r"\{'descr': '([<|](?:b1|[iu][1248]|f[248]))', 'fortran_order': False, "
    r"'shape': \(((?:[0-9]{1,10}, )*[0-9]{1,10},?)?\), \} *\n"
)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip file can hold: equal cases, equal bytes


@dataclass(frozen=True)
class GoldenCase:
    """One probe with the source's answers.

    Attributes:
        name: the case's name, e.g. `"noise_b1"`.
        inputs: signature name -> array.
        outputs: signature name -> array.
        taps: tap name -> array.
    """

    name: str
    inputs: Mapping[str, npt.NDArray[Any]]
    outputs: Mapping[str, npt.NDArray[Any]]
    taps: Mapping[str, npt.NDArray[Any]]


def write_golden(cases: Iterable[GoldenCase]) -> bytes:
    """Return the content of `golden.npz`; equal cases give equal bytes.

    Args:
        cases: at least one, with different names; arrays of numbers or booleans.

    Raises:
        ValueError: no case, a case name twice or with other characters than `[A-Za-z0-9._-]`,
            or an array of objects.
    """
    import numpy as np

    buffer = io.BytesIO()
    seen: set[str] = set()
    with zipfile.ZipFile(buffer, "w") as archive:
        for case in cases:
            if case.name in seen or re.fullmatch(_CASE_PATTERN, case.name) is None:
                raise ValueError(f"case name {case.name!r}: expected a new one of A-Za-z0-9._-")
            seen.add(case.name)
            for group, arrays in zip(_GROUPS, (case.inputs, case.outputs, case.taps), strict=True):
                for name, array in arrays.items():
                    member = zipfile.ZipInfo(f"{case.name}/{group}/{name}.npy", _EPOCH)
                    member.compress_type = zipfile.ZIP_DEFLATED
                    plain = np.asarray(array)
                    # ascontiguousarray turns a scalar into one dimension: keep the shape.
                    plain = np.ascontiguousarray(plain).reshape(plain.shape)
                    content = io.BytesIO()
                    np.lib.format.write_array(
                        content,
                        plain.astype(plain.dtype.newbyteorder("<"), copy=False),
                        version=(1, 0),
                        allow_pickle=False,
                    )
                    archive.writestr(member, content.getvalue())
    if not seen:
        raise ValueError("no golden case: expected at least one")
    return buffer.getvalue()


def read_golden(
    data: bytes, manifest: _Probed, *, name: str = "golden.npz"
) -> tuple[GoldenCase, ...]:
    """Read the content of `golden.npz`.

    Args:
        data: the file's bytes.
        manifest: a `Manifest`, or anything with its `signature` and `taps`: every case must hold
            each of their tensors, with the declared dtype and a shape that fits.
        name: the file's name, for messages.

    Returns:
        The cases in the file's order, at least one.

    Raises:
        BundleError: not a zip file, an unknown, repeated or missing member, a member that is not
            a plain array, sizes that disagree or exceed 512 MiB in all.
    """
    specs: dict[str, dict[str, TensorSpec | TapSpec]] = {
        "inputs": {spec.name: spec for spec in manifest.signature.inputs},
        "outputs": {spec.name: spec for spec in manifest.signature.outputs},
        "taps": {tap.name: tap for tap in manifest.taps},
    }
    found: dict[str, dict[str, dict[str, npt.NDArray[Any]]]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in _checked_members(archive, name):
                case, group, tensor = _split(member.filename, specs, name)
                array = _read_array(archive, member, name)
                _check_array(array, specs[group][tensor], f"{name}: {member.filename}")
                groups = found.setdefault(case, {key: {} for key in _GROUPS})
                groups[group][tensor] = array
    except (
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        OverflowError,
    ) as exc:
        raise BundleError(f"{name} is not a readable golden file: {one_line(exc)}") from exc
    if not found:
        raise BundleError(f"{name} holds no case: expected at least one")
    for case, groups in found.items():
        for group, wanted in specs.items():
            missing = sorted(set(wanted) - set(groups[group]))
            if missing:
                raise BundleError(
                    f'{name}: case "{case}" lacks {group} {join_names(missing)}: '
                    "expected every tensor of the manifest"
                )
    return tuple(
        GoldenCase(case, groups["inputs"], groups["outputs"], groups["taps"])
        for case, groups in found.items()
    )


def _checked_members(archive: zipfile.ZipFile, name: str) -> Sequence[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > _MEMBERS_MAX:
        raise BundleError(f"{name} has {len(members)} members: expected at most {_MEMBERS_MAX}")
    if len({member.filename for member in members}) != len(members):
        raise BundleError(f"{name} holds a member twice: expected every name once")
    total = sum(member.file_size for member in members)
    if total > GOLDEN_EXPANDED_BYTES_MAX:
        raise BundleError(
            f"{name} expands to {total} bytes: expected at most {GOLDEN_EXPANDED_BYTES_MAX}"
        )
    for member in members:
        # bzip2 and lzma reach far higher ratios, and an encrypted member cannot be read anyway.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleError(f"{name}: a member uses another compression: expected deflate")
        if member.flag_bits & 0x1:
            raise BundleError(f"{name}: a member is encrypted: expected plain members")
    return members


def _split(
    filename: str, specs: Mapping[str, Mapping[str, object]], name: str
) -> tuple[str, str, str]:
    parts = filename.split("/", 2)
    if len(parts) == 3 and parts[2].endswith(".npy"):
        case, group, tensor = parts[0], parts[1], parts[2].removesuffix(".npy")
        if re.fullmatch(_CASE_PATTERN, case) and tensor in specs.get(group, {}):
            return case, group, tensor
    raise BundleError(
        f"{name} holds the member {one_line(repr(filename))}: expected "
        "<case>/inputs|outputs|taps/<name of a tensor in the manifest>.npy"
    )


def _read_array(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str
) -> npt.NDArray[np.generic]:
    import numpy as np

    where = f"{name}: {one_line(member.filename)}"
    with archive.open(member) as stream:
        start = stream.read(len(_MAGIC) + 2)
        if len(start) != len(_MAGIC) + 2 or not start.startswith(_MAGIC):
            raise BundleError(f"{where} is not an .npy file of version 1.0: expected one")
        header = stream.read(int.from_bytes(start[-2:], "little"))
        match = re.fullmatch(_HEADER_PATTERN, header.decode("latin-1"))
        if match is None:
            raise BundleError(
                f"{where} is not a plain array in C order: expected numbers or booleans, no objects"
            )
        dtype = np.dtype(match[1])
        shape = tuple(int(part) for part in (match[2] or "").replace(",", " ").split())
        expected = dtype.itemsize
        for size in shape:
            expected *= size
        content_bytes = member.file_size - len(start) - len(header)
        if expected != content_bytes:
            raise BundleError(
                f"{where} declares {expected} bytes of data but holds {content_bytes}: "
                "expected them to agree"
            )
        content = stream.read()
    if len(content) != expected:
        raise BundleError(f"{where} ends after {len(content)} bytes: expected {expected}")
    if dtype.kind == "b" and content.translate(None, b"\x00\x01"):
        raise BundleError(f"{where} holds booleans other than 0 and 1: expected only these")
    array = np.frombuffer(content, dtype).reshape(shape)
    return array  # read-only, on purpose: a golden value is not to be changed


def _check_array(array: npt.NDArray[np.generic], spec: TensorSpec | TapSpec, where: str) -> None:
    if array.dtype != spec.dtype:
        raise BundleError(f"{where} is {array.dtype}: expected {spec.dtype}")
    expected = shape_problem(spec.shape, array.shape)
    if expected is not None:
        raise BundleError(f"{where} has shape {list(array.shape)}: expected {expected}")
