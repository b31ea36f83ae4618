"""Bundles: every damaged, hostile or incomplete one is refused with a clear line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import numpy as np
import pytest

from stnkit.runtime.bundle import open_bundle
from stnkit.runtime.errors import BundleError, InputError

LISTED = ["model.fp32.onnx", "golden.npz", "equivalence.json"]


def refuse(path, *parts, error=BundleError):
    with pytest.raises(error) as caught:
        open_bundle(path)
    text = str(caught.value)
    for part in parts:
        assert part in text
    assert "\n" not in text
    assert caught.value.exit_code == 2


def test_a_whole_bundle(bundle_path, onnx_model, toy):
    bundle = open_bundle(bundle_path)
    assert bundle.path == bundle_path
    assert bundle.manifest.name == "toy"
    assert bundle.read("model.fp32.onnx") == onnx_model
    first, second = bundle.golden()
    assert (first.name, second.name) == ("noise_b1", "noise_b3")
    np.testing.assert_array_equal(second.taps["st/warped"], toy.case(3).taps["st/warped"])
    assert open_bundle(str(bundle_path)).manifest == bundle.manifest


def test_files_that_are_not_listed_do_not_matter(bundle_path):
    (bundle_path / "report.html").write_text("hello")
    open_bundle(bundle_path)
    with pytest.raises(InputError, match=r'lists no file "report\.html"'):
        open_bundle(bundle_path).read("report.html")


def test_no_folder(tmp_path, bundle_path):
    refuse(tmp_path / "none", "none does not exist", error=InputError)
    refuse(bundle_path / "golden.npz", "golden.npz is not a folder", error=InputError)
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "manifest.json is missing")


@pytest.mark.parametrize("file", LISTED)
class TestEveryListedFile:
    """What can be wrong with one file."""

    def test_missing(self, bundle_path, file):
        (bundle_path / file).unlink()
        refuse(bundle_path, f"{file} is missing")

    def test_link_out(self, bundle_path, tmp_path, file):
        shutil.move(bundle_path / file, tmp_path / "outside")
        (bundle_path / file).symlink_to(tmp_path / "outside")
        refuse(bundle_path, f"{file} is a link")

    def test_link_inside(self, bundle_path, file):
        (bundle_path / file).rename(bundle_path / "real")
        (bundle_path / file).symlink_to("real")
        refuse(bundle_path, f"{file} is a link")

    def test_folder(self, bundle_path, file):
        (bundle_path / file).unlink()
        (bundle_path / file).mkdir()
        refuse(bundle_path, file)

    def test_pipe_does_not_block(self, bundle_path, file):
        (bundle_path / file).unlink()
        os.mkfifo(bundle_path / file)
        refuse(bundle_path, f"{file} is not a plain file")

    def test_truncated_empty_and_longer(self, bundle_path, file):
        data = (bundle_path / file).read_bytes()
        for content in (data[:-1], b"", data + b"\0"):
            (bundle_path / file).write_bytes(content)
            refuse(bundle_path, file, f"{len(content)} bytes: expected {len(data)}")

    def test_one_flipped_bit_anywhere(self, bundle_path, file):
        data = (bundle_path / file).read_bytes()
        for position in range(0, len(data), max(1, len(data) // 100)):
            changed = bytearray(data)
            changed[position] ^= 1 << (position % 8)
            (bundle_path / file).write_bytes(changed)
            refuse(bundle_path, f"{file} has sha256", "expected")

    def test_changed_after_opening(self, bundle_path, file):
        bundle = open_bundle(bundle_path)
        data = (bundle_path / file).read_bytes()
        (bundle_path / file).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(BundleError, match="has sha256"):
            bundle.read(file)


def test_flipped_bits_in_the_manifest(bundle_path):
    path = bundle_path / "manifest.json"
    data = path.read_bytes()
    for position in range(0, len(data), 13):
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 8)
        path.write_bytes(changed)
        refuse(bundle_path, "manifest.json")


def test_manifest_is_a_link(bundle_path):
    (bundle_path / "manifest.json").rename(bundle_path / "m.json")
    (bundle_path / "manifest.json").symlink_to("m.json")
    refuse(bundle_path, "manifest.json is a link")


def test_manifest_too_long(bundle_path):
    with (bundle_path / "manifest.json").open("ab") as stream:
        stream.truncate(5 * 2**20)
    refuse(bundle_path, "expected at most 4194304")


@pytest.mark.parametrize("file", ["../outside", "/etc/hostname", "sub/x", "..", "."])
def test_paths_that_leave_the_folder(maker, bundle_path, tmp_path, file):
    (tmp_path / "outside").write_bytes(b"secret")

    def change(document):
        document["equivalence"] = {
            "file": file,
            "sha256": hashlib.sha256(b"secret").hexdigest(),
            "bytes": 6,
        }

    maker.edit(bundle_path, change)
    refuse(bundle_path, "equivalence.file is", "expected a plain file name inside the bundle")


def test_declared_sizes_are_bounded_before_anything_is_read(maker, bundle_path):
    def change(document):
        artifact = document["artifacts"][0]
        document["artifacts"] = [
            {**artifact, "file": f"m{i}.onnx", "bytes": 2**31} for i in range(5)
        ]

    maker.edit(bundle_path, change)
    refuse(bundle_path, "expected at most 8589934592 in one bundle")


def external(model, where):
    from onnx import ModelProto, TensorProto, helper

    proto = ModelProto.FromString(model)
    tensor = TensorProto(name="far", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../etc/passwd")
    graph = proto.graph
    if where == "initializer":
        graph.initializer.append(tensor)
    elif where == "attribute":
        graph.node.append(helper.make_node("Constant", [], ["far"], value=tensor))
    elif where == "attribute list":
        node = helper.make_node("Thing", [], ["far"])
        node.attribute.append(helper.make_attribute("ts", [tensor]))
        graph.node.append(node)
    elif where == "subgraph":
        inner = helper.make_graph([], "inner", [], [], [tensor])
        outer = helper.make_graph(
            [helper.make_node("If", ["c"], [], then_branch=inner)], "o", [], []
        )
        graph.node.append(helper.make_node("If", ["c"], ["far"], then_branch=outer))
    elif where == "sparse":
        sparse = graph.sparse_initializer.add()
        sparse.values.CopyFrom(tensor)
    elif where == "function":
        function = proto.functions.add(name="f", domain="d")
        function.node.append(helper.make_node("Constant", [], ["far"], value=tensor))
    elif where == "no location flag":
        tensor.data_location = TensorProto.DEFAULT
        graph.initializer.append(tensor)
    elif where == "training":
        proto.training_info.add().algorithm.initializer.append(tensor)
    return proto.SerializeToString()


@pytest.mark.parametrize(
    "where",
    [
        *("initializer", "attribute", "attribute list", "subgraph", "sparse"),
        *("function", "no location flag", "training"),
    ],
)
def test_onnx_external_data_is_refused_wherever_it_is(maker, onnx_model, tmp_path, where):
    path = maker.write(tmp_path / "b", [external(onnx_model, where)])
    refuse(
        path, "model.fp32.onnx", '"far" has its data in another file', "expected all data inside"
    )


def test_an_onnx_file_that_is_none_is_refused(maker, onnx_model, tmp_path):
    refuse(maker.write(tmp_path / "b", [onnx_model[:-3]]), "truncated")


class TestArtifactChoice:
    """`Bundle.artifact`."""

    def test_by_name_format_or_first(self, both_path):
        bundle = open_bundle(both_path)
        assert bundle.artifact().format == "tflite"
        assert bundle.artifact("onnx").file == "model.fp32.onnx"
        assert bundle.artifact("model.fp32.onnx").format == "onnx"

    def test_unknown(self, both_path):
        with pytest.raises(InputError) as caught:
            open_bundle(both_path).artifact("pb")
        assert 'no artifact "pb"' in str(caught.value)
        assert '"model.fp32.tflite", "model.fp32.onnx"' in str(caught.value)

    def test_format_that_two_have(self, maker, bundle_path, onnx_model):
        (bundle_path / "second.onnx").write_bytes(onnx_model)

        def change(document):
            document["artifacts"].append({**document["artifacts"][0], "file": "second.onnx"})

        maker.edit(bundle_path, change)
        with pytest.raises(InputError, match='2 artifacts named "onnx"'):
            open_bundle(bundle_path).artifact("onnx")


def test_golden_that_lacks_a_tensor(maker, bundle_path):
    def change(document):
        document["taps"].append({**document["taps"][0], "name": "st2/theta"})
        document["artifacts"][0]["taps"]["st2/theta"] = "x"

    maker.edit(bundle_path, change)
    with pytest.raises(BundleError, match=r'golden\.npz: case "noise_b1" lacks taps "st2/theta"'):
        open_bundle(bundle_path).golden()


def test_the_manifest_on_disk_is_plain_json(bundle_path):
    document = json.loads((bundle_path / "manifest.json").read_text())
    assert document["artifacts"][0]["file"] == "model.fp32.onnx"
