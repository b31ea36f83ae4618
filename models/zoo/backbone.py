"""Spatial transformers in front of a network of `keras.applications`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from stnkit.models.shapes import check_output_size
from stnkit.models.zoo.arguments import check_count, check_input_shape
from stnkit.models.zoo.pixels import PixelMap, pixel_map
from stnkit.models.zoo.stages import image_input, transformer_stages


def backbone_names() -> tuple[str, ...]:
    """Return the names of the networks that `keras.applications` has."""
    return tuple(sorted(_modules()))


def _modules() -> dict[str, Any]:
    """Return the module of `keras.applications` with each network's preprocessing, by its name."""
    # Not the modules' own lists: that of MobileNetV3 names no network, that of ResNet two twice.
    return {
        name: getattr(keras.applications, value.__module__.rpartition(".")[2])
        for name, value in vars(keras.applications).items()
        if name[0].isupper() and callable(value)
    }


def make_backbone(
    name: str,
    input_shape: tuple[int, int, int],
    weights: Any = None,
    trainable: bool | str | None = None,
) -> tuple[Any, PixelMap]:
    """Return a network of `keras.applications` without its top, and the layer in front of it.

    Args:
        name: Its name there, e.g. "VGG16".
        input_shape: `(height, width, 3)`.
        weights: None for random ones, "imagenet" for those that Keras downloads, or the path of a
            weights file of the network without top.
        trainable: True, False, or the name of the block from which on the layers are trained: the
            first layer whose name starts so, and all that follow. None: True for random weights,
            False for others.

    Raises:
        ValueError: If there is no such network or block, if the network does not take images of
            that size, or if the weights cannot be had or do not fit.
    """
    modules = _modules()
    if name not in modules:
        raise ValueError(
            f"backbone is {name!r}: keras.applications has {', '.join(sorted(modules))}"
        )
    path = None
    if weights is not None and weights != "imagenet":
        path = Path(weights)
        if not path.is_file():
            raise ValueError(
                f"weights is {str(weights)!r}: no such file; expected a weights file, "
                '"imagenet" or None'
            )
    try:
        network = getattr(keras.applications, name)(
            include_top=False,
            weights="imagenet" if weights == "imagenet" else None,
            input_shape=input_shape,
        )
    except Exception as exc:  # a failed download raises a bare Exception
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        if weights == "imagenet":
            raise ValueError(
                f"{name} for images of {input_shape} cannot be had with ImageNet weights "
                f"({reason}): where they cannot be downloaded, pass the path of a weights file of "
                "the network without top"
            ) from exc
        raise ValueError(f"{name} does not take images of {input_shape} ({reason})") from exc
    if path is not None:
        _load(network, path, name)
    set_trainable(network, weights is None if trainable is None else trainable)
    return network, pixel_map(modules[name].preprocess_input, f"{network.name}_pixels")


def _load(network: Any, path: Path, name: str) -> None:
    before = [variable.numpy().copy() for variable in network.weights]
    try:
        network.load_weights(path)
    except Exception as exc:  # h5py, zipfile and Keras each raise their own kinds
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise ValueError(
            f"{path}: cannot be loaded as weights of {name} without its top ({reason}): expected "
            "what save_weights wrote for that network, .weights.h5 or legacy .h5"
        ) from exc
    if all((old == new.numpy()).all() for old, new in zip(before, network.weights, strict=True)):
        raise ValueError(f"{path}: holds no weights of {name}: nothing in the network changed")


def set_trainable(network: Any, trainable: bool | str) -> None:
    """Freeze a network, or a part of it.

    A frozen batch normalisation uses its stored statistics.

    Args:
        network: A Keras model whose layers have names like "block5_conv1".
        trainable: True, False, or the name of the block from which on the layers are trained.

    Raises:
        ValueError: If no layer's name starts with the block's.
    """
    if isinstance(trainable, bool):
        _set_all(network, trainable)
        return
    first = next(
        (
            index
            for index, layer in enumerate(network.layers)
            if layer.name == trainable or layer.name.startswith(f"{trainable}_")
        ),
        None,
    )
    if first is None:
        stems = dict.fromkeys(layer.name.split("_")[0] for layer in network.layers)
        raise ValueError(
            f"trainable is {trainable!r}: {network.name} has no such block; its layers are called "
            f"{', '.join(stems)}"
        )
    _set_all(network, True)
    for layer in network.layers[:first]:
        _set_all(layer, False)


def _set_all(layer: Any, trainable: bool) -> None:
    """Set the flag of a layer and of all below it.

    Assigned to the outer one alone it need not arrive: TensorFlow drops an assignment of the value
    that is there already, and with it what Keras does to the layers below.
    """
    layer.trainable = trainable
    for below in getattr(layer, "layers", ()):
        _set_all(below, trainable)


def classifier(features: Any, classes: int, units: int | None, dropout: float) -> Any:
    """Return class probabilities `[batch, classes]` for a Keras tensor `[batch, features]`."""
    # Backbones differ by orders of magnitude in the size of their features, VGG's are large.
    features = keras.layers.BatchNormalization(name="features_norm")(features)
    if units is not None:
        features = keras.layers.Dense(units, activation="relu", name="hidden")(features)
    features = keras.layers.Dropout(dropout, name="dropout")(features)
    # Probabilities in half precision would not add up to 1.
    return keras.layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(
        features
    )


def backbone_network(
    backbone: str = "MobileNetV2",
    input_shape: Any = (224, 224, 3),
    classes: int = 10,
    weights: Any = None,
    trainable: bool | str | None = None,
    transformers: int = 1,
    resampling: str = "once",
    transform: Any = "affine",
    output_size: Any = None,
    units: int | None = None,
    dropout: float = 0.2,
    make_localization_net: Callable[[int], Any] | None = None,
    localization_lr_multiplier: float = 1.0,
) -> Any:
    """Return a classifier: spatial transformers in front of a network of `keras.applications`.

    What the network wants of its pixels (their order, range and mean) is part of the model, behind
    the transformers.

    Args:
        backbone: Name in `keras.applications`.
        input_shape: `(height, width, 3)`.
        classes: How many classes there are.
        weights: None, "imagenet" or the path of a weights file of the network without top.
        trainable: Whether the backbone is trained: True, False, or the name of the block from which
            on it is. None: True for random weights, False for others.
        transformers: How many transformers stand in sequence.
        resampling: "once" composes their thetas and samples the image once, "each" samples at each.
        transform: What theta means; for several transformers and "once" one that can be composed.
        output_size: `(height, width)` of what the backbone sees, px; None keeps that of the image.
        units: Width of a hidden layer behind the backbone; None for none.
        dropout: Fraction of features dropped before the last layer.
        make_localization_net: From a stage's number (0 first) to its localisation network.
        localization_lr_multiplier: As in `SpatialTransformer`.

    Returns:
        Functional model from "image" `[batch, *input_shape]` float32 in [0, 1] to "probabilities"
        `[batch, classes]`; the backbone is one layer in it.

    Raises:
        ValueError: If an argument is wrong, or the weights cannot be had.

    Source:
        Jaderberg et al. 2015, section 4 (transformers in front of a classification network).
    """
    shape = check_input_shape(input_shape, channels=3)
    check_count(classes, "classes")
    if units is not None:
        check_count(units, "units")
    size = check_output_size(output_size) if output_size is not None else shape[:2]
    network, pixels = make_backbone(backbone, (*size, 3), weights, trainable)
    image = image_input(shape)
    warped = transformer_stages(
        image,
        transformers,
        transform=transform,
        resampling=resampling,
        output_size=None if output_size is None else size,
        make_localization_net=make_localization_net,
        localization_lr_multiplier=localization_lr_multiplier,
    )
    features = network(pixels(warped))
    pooled = keras.layers.GlobalAveragePooling2D(name="average")(features)
    probabilities = classifier(pooled, classes, units, dropout)
    return keras.Model(image, probabilities, name=f"stn_{backbone.lower()}")


def vgg16_network(
    input_shape: Any = (224, 224, 3),
    classes: int = 10,
    weights: Any = None,
    trainable: bool | str | None = None,
    transformers: int = 1,
    resampling: str = "once",
    transform: Any = "affine",
    units: int | None = 256,
    dropout: float = 0.5,
    **options: Any,
) -> Any:
    """Return VGG16 with spatial transformers in front: `backbone_network("VGG16", …)`.

    Args:
        input_shape: `(height, width, 3)`, 32 px a side at least.
        classes: How many classes there are.
        weights: None, "imagenet", or the path of a weights file without top.
        trainable: True, False, or the block from which on it is trained, e.g. "block5".
        transformers: How many transformers stand in sequence.
        resampling: "once" or "each".
        transform: What theta means.
        units: Width of the hidden layer behind the convolutions.
        dropout: Fraction of features dropped before the last layer.
        **options: Further arguments of `backbone_network`.

    Returns:
        As `backbone_network`.

    Raises:
        ValueError: If an argument is wrong, or the weights cannot be had.

    Source:
        Simonyan and Zisserman 2015, configuration D.
    """
    return backbone_network(
        "VGG16",
        input_shape,
        classes,
        weights,
        trainable,
        transformers,
        resampling,
        transform,
        units=units,
        dropout=dropout,
        **options,
    )
