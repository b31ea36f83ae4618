"""The golden file: exact round trip, and no allocation that a hostile file could ask for."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from stnkit.runtime.compare import Tolerance
from stnkit.runtime.errors import BundleError
from stnkit.runtime.golden import GOLDEN_EXPANDED_BYTES_MAX, GoldenCase, read_golden, write_golden
from stnkit.runtime.signature import Contract, Signature, TapSpec, TensorSpec, Tolerances

CONTRACT = Contract(
    Signature(
        (TensorSpec("in:0/x", "float32", ("batch", 2)),), (TensorSpec("y", "int64", ("batch",)),)
    ),
    (TapSpec("st/theta", "theta", "st", ("batch", 6)),),
    Tolerances(Tolerance(0), Tolerance(0), Tolerance(0)),
)
MEMBERS = ("c/inputs/in:0/x.npy", "c/outputs/y.npy", "c/taps/st/theta.npy")


def case(name="c", batch=3) -> GoldenCase:
    rng = np.random.default_rng(batch)
    return GoldenCase(
        name,
        {"in:0/x": rng.normal(size=(batch, 2)).astype(np.float32)},
        {"y": rng.integers(-(2**60), 2**60, batch)},
        {"st/theta": rng.normal(size=(batch, 6)).astype(np.float32)},
    )


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz(members, compression=zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def good_members() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(write_golden([case()]))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_header(text: str, data: bytes = b"") -> bytes:
    header = text.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def test_round_trip():
    cases = [case("noise_b1", 1), case("noise_b3", 3)]
    data = write_golden(cases)
    assert write_golden(cases) == data
    found = read_golden(data, CONTRACT)
    assert [item.name for item in found] == ["noise_b1", "noise_b3"]
    for have, want in zip(found, cases, strict=True):
        for group in ("inputs", "outputs", "taps"):
            assert set(getattr(have, group)) == set(getattr(want, group))
            for name, array in getattr(want, group).items():
                back = getattr(have, group)[name]
                assert back.dtype == array.dtype
                np.testing.assert_array_equal(back, array)
    with np.load(io.BytesIO(data), allow_pickle=False) as plain:
        np.testing.assert_array_equal(plain["noise_b1/outputs/y"], cases[0].outputs["y"])


def test_all_dtypes_scalars_and_other_orders():
    arrays = {
        "float16": np.array(1.5, np.float16),
        "bool": np.array([True, False]),
        "int8": np.array([[-1]], np.int8),
        "uint8": np.arange(3, dtype=np.uint8),
        "int32": np.arange(6, dtype=np.int32).reshape(2, 3).T,
        "float32": np.arange(4, dtype=">f4"),
    }
    signature = Signature(
        tuple(TensorSpec(name, name, array.shape) for name, array in arrays.items()),
        (TensorSpec("y", "int64", ("batch",)),),
    )
    contract = Contract(signature, (), CONTRACT.tolerances)
    data = write_golden([GoldenCase("c", arrays, {"y": np.arange(2)}, {})])
    found = read_golden(data, contract)[0]
    for name, array in arrays.items():
        assert found.inputs[name].dtype == np.dtype(name)
        np.testing.assert_array_equal(found.inputs[name], array)
        with pytest.raises(ValueError, match="read-only"):
            found.inputs[name][...] = 0


def test_nothing_to_write_is_an_error():
    with pytest.raises(ValueError, match="no golden case"):
        write_golden([])


@pytest.mark.parametrize("names", [["a/b"], ["a", "a"], [""], ["../x"]])
def test_bad_case_names_are_not_written(names):
    with pytest.raises(ValueError, match="case name"):
        write_golden([case(name) for name in names])


def test_objects_are_not_written():
    bad = GoldenCase("c", {"x": np.array([{}], object)}, {}, {})
    with pytest.raises(ValueError, match="allow_pickle"):
        write_golden([bad])


@pytest.mark.parametrize("missing", MEMBERS)
def test_every_tensor_must_be_there(missing):
    members = good_members()
    del members[missing]
    _, group, name = missing.removesuffix(".npy").split("/", 2)
    with pytest.raises(BundleError, match=f'case "c" lacks {group} "{name}"'):
        read_golden(npz(members.items()), CONTRACT)


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        (MEMBERS[0], npy(np.zeros((1, 2))), "is float64: expected float32"),
        (MEMBERS[0], npy(np.zeros((1, 3), "f4")), r"shape \[1, 3\]: expected \[batch, 2\]"),
        (MEMBERS[0], npy(np.zeros((0, 2), "f4")), r"shape \[0, 2\]: expected \[batch, 2\]"),
        (MEMBERS[0], npy(np.array([[{}, 1]], object)), "no objects"),
        (MEMBERS[0], npy(np.zeros((1, 2), "f4,f4")), "not a plain array"),
        (MEMBERS[0], npy(np.zeros((3, 2), "f4", order="F")), "not a plain array in C order"),
        (MEMBERS[0], npy(np.zeros((1, 2), ">f4")), "not a plain array"),
        (MEMBERS[0], npy(np.zeros((1, 2), "c8")), "not a plain array"),
        (MEMBERS[0], npy(np.zeros((1, 2), "f4"))[:-1], "declares 8 bytes of data but holds 7"),
        (MEMBERS[0], npy(np.zeros((1, 2), "f4")) + b"x", "declares 8 bytes of data but holds 9"),
        (MEMBERS[0], b"", "is not an .npy file"),
        (MEMBERS[0], b"\x93NUMPY\x03\x00" + bytes(20), "is not an .npy file of version 1.0"),
        (MEMBERS[0], b"\x93NUMPY\x01\x00\xff\xff{}", "not a plain array"),
        (
            MEMBERS[0],
            with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2), }"),
            "not a plain array",
        ),
        (
            MEMBERS[0],
            with_header("{'descr': '<f9', 'fortran_order': False, 'shape': (1, 2), }"),
            "not a plain array",
        ),
        (
            MEMBERS[0],
            with_header("__import__('os').system('true')"),
            "not a plain array",
        ),
        ("c/inputs/other.npy", npy(np.zeros(1)), "holds the member"),
        ("c/extra/y.npy", npy(np.zeros(1)), "holds the member"),
        ("../c/outputs/y.npy", npy(np.zeros(1)), "holds the member"),
        ("/c/outputs/y.npy", npy(np.zeros(1)), "holds the member"),
        ("c/outputs/y.pkl", b"cos\nsystem\n", "holds the member"),
        ("y.npy", npy(np.zeros(1)), "holds the member"),
    ],
)
def test_hostile_members(member, content, message):
    members = {**good_members(), member: content}
    with pytest.raises(BundleError, match=message) as caught:
        read_golden(npz(members.items()), CONTRACT)
    assert "\n" not in str(caught.value)


def test_a_huge_declared_shape_is_refused_before_allocation():
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000, 2), }"
    members = {**good_members(), MEMBERS[0]: with_header(header, bytes(8))}
    data = npz(members.items())
    tracemalloc.start()
    with pytest.raises(BundleError, match="declares 32000000000 bytes of data but holds 8"):
        read_golden(data, CONTRACT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_bomb_is_refused_before_it_is_expanded():
    data = bytearray(npz([(MEMBERS[0], bytes(1000))]))
    # The central directory says how large the member is; a real bomb would say so too.
    entry = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 24, GOLDEN_EXPANDED_BYTES_MAX + 1)
    with pytest.raises(BundleError, match="expands to 536870913 bytes: expected at most"):
        read_golden(bytes(data), CONTRACT)


def test_a_member_that_lies_about_its_size():
    good = npy(np.zeros((1, 2), "f4"))
    data = bytearray(npz([(MEMBERS[0], good + bytes(10**6))]))
    entry = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 24, len(good))
    with pytest.raises(BundleError, match="not a readable golden file"):
        read_golden(bytes(data), CONTRACT)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(compression):
    with pytest.raises(BundleError, match="another compression"):
        read_golden(npz(good_members().items(), compression), CONTRACT)


def test_encrypted_members_are_refused():
    data = bytearray(npz([(MEMBERS[0], b"x")]))
    entry = data.index(b"PK\x01\x02")
    data[entry + 8] |= 1
    with pytest.raises(BundleError, match="encrypted"):
        read_golden(bytes(data), CONTRACT)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice_is_refused():
    members = list(good_members().items())
    with pytest.raises(BundleError, match="holds a member twice"):
        read_golden(npz([*members, members[0]]), CONTRACT)


def test_too_many_members_are_refused():
    data = npz([(f"c{i}/outputs/y.npy", b"") for i in range(10_001)], zipfile.ZIP_STORED)
    with pytest.raises(BundleError, match="10001 members"):
        read_golden(data, CONTRACT)


def test_booleans_other_than_0_and_1():
    contract = Contract(Signature((TensorSpec("x", "bool", (2,)),), ()), (), CONTRACT.tolerances)
    good = npy(np.array([True, False]))
    with pytest.raises(BundleError, match="booleans other than 0 and 1"):
        read_golden(npz([("c/inputs/x.npy", good[:-1] + b"\x07")]), contract)


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x05\x06" + bytes(18)])
def test_no_zip_or_no_case(data):
    with pytest.raises(BundleError, match=r"not a readable golden file|holds no case"):
        read_golden(data, CONTRACT)


def test_flipped_bits_never_crash_and_never_change_a_value():
    data = write_golden([case()])
    want = read_golden(data, CONTRACT)[0]
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 8)
        try:
            found = read_golden(bytes(changed), CONTRACT)
        except BundleError:
            continue
        for group in ("inputs", "outputs", "taps"):
            for name, array in getattr(want, group).items():
                np.testing.assert_array_equal(getattr(found[0], group)[name], array)


def test_truncation_anywhere_is_refused():
    data = write_golden([case()])
    for length in range(len(data)):
        with pytest.raises(BundleError):
            read_golden(data[:length], CONTRACT)
