"""`stnkit models`: the networks by name, and as files to train."""

from __future__ import annotations

import json

import keras
import pytest

from stnkit.models.zoo import ENTRIES


def new(stnkit, *arguments, **options):
    """Make `model.keras` and return what is said of it as JSON."""
    result = stnkit("models", "new", *arguments, "-o", "model.keras", "--json", **options)
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


# ---- list ----


def test_list_shows_every_network_in_a_line(stnkit):
    text = stnkit("models", "list").stdout
    for entry in ENTRIES:
        (line,) = [line for line in text.splitlines() if line.split(" ")[0] == entry.name]
        assert f"{entry.parameters:,}" in line
        assert entry.summary in line
    assert "stnkit models new NAME -o model.keras" in text


def test_list_as_json(stnkit):
    document = json.loads(stnkit("models", "list", "--json").stdout)
    assert [record["name"] for record in document] == [entry.name for entry in ENTRIES]
    for record, entry in zip(document, ENTRIES, strict=True):
        assert record == {
            "name": entry.name,
            "summary": entry.summary,
            "parameters": entry.parameters,
            "options": list(entry.options),
        }


def test_list_needs_no_tensorflow(process):
    result = process("models", "list", missing="tensorflow,keras,tf2onnx,onnx")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "paper-st-cnn" in result.stdout


# ---- new ----


def test_new_says_what_it_made_and_what_comes_next(stnkit, scratch):
    result = stnkit("models", "new", "tutorial", "-o", "mine.keras", "--classes", 4)
    assert result.stdout.splitlines() == [
        "mine.keras: tutorial, 27,054 parameters, 27,054 of them trainable, untrained",
        "  input  image [batch, 28, 28, 1]",
        "  output probabilities [batch, 4]",
        "Train it with fit(), then: stnkit convert mine.keras -o mine.bundle",
    ]
    assert result.stderr == ""
    assert [path.name for path in scratch.iterdir()] == ["mine.keras"]
    model = keras.saving.load_model("mine.keras")
    assert model.output_shape == (None, 4)


def test_options_reach_the_network(stnkit):
    document = new(
        *(stnkit, "vgg16", "--input-shape", "32, 48,3", "--classes", 3, "--trainable", "block5"),
        *("--transformers", 2, "--resampling", "each", "--transform", "thin_plate_spline"),
        *("--output-size", "32,40"),
    )
    assert document["inputs"] == {"image": [None, 32, 48, 3]}
    model = keras.saving.load_model("model.keras")
    assert model.get_layer("spatial_transformer_2").transform.name == "thin_plate_spline"
    inner = model.get_layer("vgg16")
    assert inner.input_shape == (None, 32, 40, 3)
    assert len(inner.trainable_variables) == 6
    assert document["trainable"] < document["parameters"] - 7_000_000


@pytest.mark.parametrize(
    ("arguments", "outputs"),
    [
        ("segmentation --input-shape 32,40,1 --frame-size 16,24 --classes 3", [None, 32, 40, 3]),
        ("registration --input-shape 16,24,1 --flow dense", [None, 16, 24, 1]),
        ("paper-fcn --input-shape 28,28,1", [None, 10]),
    ],
)
def test_options_of_other_networks(arguments, outputs, stnkit):
    assert outputs in new(stnkit, *arguments.split())["outputs"].values()


@pytest.mark.parametrize(("flag", "count"), [("--shared", 1), ("--separate", 3)])
def test_crops_with_one_backbone_or_several(flag, count, stnkit):
    size = ("--input-shape", "48,48,3", "--output-size", "32,32", "--classes", 2)
    new(stnkit, "parallel", "--crops", 3, "--backbone", "MobileNet", flag, *size)
    model = keras.saving.load_model("model.keras")
    assert sum(isinstance(layer, keras.Model) for layer in model.layers) == count + 1


def test_trainable_words_and_weights(stnkit):
    size = ("backbone", "--backbone", "MobileNet", "--input-shape", "32,32,3", "--classes", 2)
    document = new(stnkit, *size, "--trainable", "none", "--weights", "none")
    inner = keras.saving.load_model("model.keras").get_layer("mobilenet_1.00_32")
    assert inner.trainable_variables == []
    inner.save_weights("mobile.weights.h5")
    again = new(stnkit, *size, "--weights", "mobile.weights.h5", "--seed", 7, "--force")
    assert again["trainable"] == document["trainable"]
    loaded = keras.saving.load_model("model.keras").get_layer("mobilenet_1.00_32")
    assert (loaded.get_weights()[0] == inner.get_weights()[0]).all()
    free = new(stnkit, *size, "--trainable", "all", "--force")
    assert free["trainable"] > document["trainable"] + 3_000_000


def test_the_seed_decides_the_weights(stnkit):
    weights = []
    for seed in (3, 3, 4):
        new(stnkit, "tutorial", "--seed", seed, "--force")
        weights.append(keras.saving.load_model("model.keras").get_weights()[0])
    assert (weights[0] == weights[1]).all()
    assert (weights[0] != weights[2]).any()


def test_what_was_made_converts_in_a_process_of_its_own(stnkit, process):
    """There nothing has imported the layers that the file names."""
    new(stnkit, "segmentation", "--input-shape", "16,16,1", "--frame-size", "8,8")
    result = process("convert", "model.keras", "-o", "b", "--to", "onnx", "--json")
    assert result.returncode == 0, result.stderr
    assert set(json.loads(result.stdout)["transformers"]) == {
        "paste_back",
        "spatial_transformer",
    }


# ---- refusals ----


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("new resnet -o x.keras", ["'resnet'", "tutorial", "registration"]),
        (
            "new tutorial -o x.keras --crops 2",
            ["tutorial has no --crops", "--classes, --transform"],
        ),
        ("new digits -o x.keras --classes 3", ["digits has no --classes", "it takes none"]),
        ("new paper-cnn -o x.keras --transform affine", ["paper-cnn has no --transform"]),
        ("new vgg16 -o x.keras --separate", ["vgg16 has no --shared/--separate"]),
        ("new tutorial -o x.keras --weights none", ["tutorial has no --weights"]),
        ("new tutorial -o x.h5", ["x.h5", ".keras"]),
        ("new tutorial -o no/such/x.keras", ["no/such", "no such folder"]),
        ("new tutorial", ["--output", "stnkit models new --help"]),
        ("new -o x.keras", ["NAME", "stnkit models new --help"]),
        ("new paper-fcn -o x.keras --input-shape 28,28", ["--input-shape is '28,28'", "64,64,3"]),
        ("new paper-fcn -o x.keras --input-shape 28x28x1", ["--input-shape is '28x28x1'"]),
        ("new paper-fcn -o x.keras --input-shape 28,-28,1", ["--input-shape is '28,-28,1'"]),
        ("new paper-fcn -o x.keras --input-shape 28,28,0", ["from 1 to 65536"]),
        ("new paper-cnn -o x.keras --input-shape 20,20,1", ["(20, 20, 1)", "at least 24x24"]),
        ("new vgg16 -o x.keras --input-shape 32,32,1", ["(32, 32, 1)", "3 channels"]),
        ("new vgg16 -o x.keras --input-shape 16,16,3", ["VGG16", "(16, 16, 3)", "32x32"]),
        ("new vgg16 -o x.keras --output-size 32", ["--output-size is '32'", "64,64"]),
        ("new segmentation -o x.keras --frame-size 30,30", ["(30, 30)", "multiples of 4"]),
        ("new segmentation -o x.keras --transform dense_flow", ["dense_flow"]),
        ("new segmentation -o x.keras --classes 1", ["background"]),
        ("new registration -o x.keras --input-shape 30,32,1", ["(30, 32, 1)", "multiples of 4"]),
        ("new registration -o x.keras --flow affine", ["--flow", "diffeomorphic", "dense"]),
        ("new tutorial -o x.keras --transform bend", ["'bend'", "affine"]),
        ("new tutorial -o x.keras --classes 0", ["--classes"]),
        ("new tutorial -o x.keras --seed -1", ["--seed"]),
        ("new vgg16 -o x.keras --trainable block9", ["'block9'", "block5"]),
        ("new vgg16 -o x.keras --weights no.h5", ["'no.h5'", "no such file"]),
        ("new vgg16 -o x.keras --resampling twice", ["--resampling", "once", "each"]),
        ("new vgg16 -o x.keras --transformers 0", ["--transformers"]),
        ("new backbone -o x.keras --backbone VGG17", ["'VGG17'", "MobileNetV2"]),
        ("list --all", ["--all", "stnkit models list --help"]),
        ("make tutorial", ["make", "stnkit models --help"]),
    ],
)
def test_wrong_use_is_one_line(arguments, says, refused):
    refused("models", *arguments.split(), says=says)


def test_an_existing_file_is_kept_unless_forced(stnkit, scratch, refused):
    (scratch / "x.keras").write_text("precious")
    refused("models", "new", "tutorial", "-o", "x.keras", says=["x.keras exists", "--force"])
    stnkit("models", "new", "tutorial", "-o", "x.keras", "--force")
    assert keras.saving.load_model("x.keras").name == "tutorial"


def test_a_file_that_holds_no_weights(scratch, refused):
    (scratch / "a.weights.h5").write_bytes(b"nothing")
    says = ["a.weights.h5: cannot be loaded as weights of VGG16", "save_weights"]
    refused("models", "new", "vgg16", "-o", "x.keras", "--weights", "a.weights.h5", says=says)


def test_imagenet_without_a_network_leaves_stdout_to_the_result(stnkit, monkeypatch):
    """Keras tells of the download on stdout; there it would be read as the result."""

    def offline(name, origin, **options):
        print(f"Downloading data from {origin}")
        raise Exception(f"URL fetch failure on {origin}: None -- unreachable")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", offline)
    arguments = ("vgg16", "-o", "x.keras", "--weights", "imagenet", "--input-shape", "32,32,3")
    result = stnkit("models", "new", *arguments, "--json", code=2)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["Downloading", "error:"]
    assert "pass the path of a weights file" in lines[1]


def test_a_full_disk_leaves_nothing_behind(monkeypatch, refused):
    original = keras.Sequential.save

    def full(self, path, *arguments, **options):
        original(self, path, *arguments, **options)
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(keras.Sequential, "save", full)
    refused("models", "new", "tutorial", "-o", "x.keras", says=["No space left on device"])


def test_without_the_converter_the_error_says_what_to_install(refused_process):
    arguments = ("models", "new", "tutorial", "-o", "x.keras")
    refused_process(*arguments, missing="tensorflow", says=["tensorflow", "pip install"])
