"""`stnkit train`: train a model that ships with stnkit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stnkit.cli.training import TrainingOptions, run_training, training_options

if TYPE_CHECKING:
    from stnkit.models.training.recipe import Recipe
    from stnkit.models.training.task import Task

_MNIST_HELP = (
    "Folder with the four IDX files of MNIST, gzip or not. Else keras.datasets.mnist is used."
)


@click.group(
    name="train",
    short_help="Train a spatial-transformer network on real data.",
    epilog="Example: stnkit train digits --data mnist/ --output digits.keras",
)
def command() -> None:
    """Train a spatial-transformer network on real data."""


@command.command(
    epilog="Example: stnkit train digits --data mnist/ --output digits.keras --epochs 16"
)
@training_options(
    click.option(
        "--samples",
        type=click.IntRange(0, 10_000),
        default=0,
        help="Also store N distorted test digits with labels, as OUTPUT's .samples.npz.",
    ),
    click.option(
        "--network",
        default="digits",
        show_default=True,
        help="Network to train: digits, tutorial, paper-fcn, paper-cnn, paper-st-fcn, "
        "paper-st-cnn.",
    ),
    click.option("--transform", help="What theta means, where the network lets it be chosen."),
    data=_MNIST_HELP,
    epochs=16,
)
def digits(options: TrainingOptions, samples: int, network: str, transform: str | None) -> None:
    """Train a network on rotated, scaled and shifted MNIST digits.

    After every epoch the state is saved beside OUTPUT; the same command resumes an interrupted run.
    """

    def task(recipe: Recipe) -> Task:
        from stnkit.models.digits.mnist import load_mnist
        from stnkit.models.digits.training import DigitsTask

        return DigitsTask(load_mnist(options.data), recipe, samples, network, transform)

    own = ["--samples", str(samples)] if samples else []
    own += ["--network", network] if network != "digits" else []
    own += ["--transform", transform] if transform else []
    run_training(
        "digits",
        options,
        task,
        lambda made: f"{made.accuracy:.2%} of {made.test_count} distorted test digits correct",
        own=tuple(own),
    )


@command.command(
    epilog="Example: stnkit train registration --data mnist/ --output registration.keras"
)
@training_options(
    click.option(
        "--flow",
        type=click.Choice(["diffeomorphic", "dense"]),
        default="diffeomorphic",
        show_default=True,
        help="What follows the affine map: a flow that can be inverted, or any displacement.",
    ),
    data=_MNIST_HELP,
    epochs=2,
)
def registration(options: TrainingOptions, flow: str) -> None:
    """Train a network that warps a distorted MNIST digit onto another of its class.

    After every epoch the state is saved beside OUTPUT; the same command resumes an interrupted run.
    """

    def task(recipe: Recipe) -> Task:
        from stnkit.models.digits.mnist import load_mnist
        from stnkit.models.recipes.registration import RegistrationTask

        return RegistrationTask(load_mnist(options.data), recipe, flow)

    run_training(
        "registration",
        options,
        task,
        lambda made: (
            f"Dice of {made.test_count} test pairs {made.figures['dice_before']:.3f} before, "
            f"{made.figures['dice_affine']:.3f} after the affine map, "
            f"{made.figures['dice_flow']:.3f} after the flow, which folds at "
            f"{made.figures['folded_pixels']:.2%} of the pixels"
        ),
        own=("--flow", flow),
    )


@command.command(
    epilog="Example: stnkit train segmentation --data mnist/ --output segmentation.keras"
)
@training_options(
    click.option(
        "--without-transformer",
        is_flag=True,
        help="Keep the transformer at the identity: the same network without it.",
    ),
    data=_MNIST_HELP,
    epochs=2,
    batch_size=64,
)
def segmentation(options: TrainingOptions, without_transformer: bool) -> None:
    """Train a network that finds the pixels of an MNIST digit on clutter made of other digits.

    After every epoch the state is saved beside OUTPUT; the same command resumes an interrupted run.
    """

    def task(recipe: Recipe) -> Task:
        from stnkit.models.digits.mnist import load_mnist
        from stnkit.models.recipes.segmentation import SegmentationTask

        data = load_mnist(options.data)
        return SegmentationTask(data, recipe, transformer=not without_transformer)

    run_training(
        "segmentation",
        options,
        task,
        lambda made: (
            f"IoU {made.figures['iou']:.3f} and Dice {made.figures['dice']:.3f} of the digits in "
            f"{made.test_count} test scenes, {made.figures['pixel_accuracy']:.2%} of the pixels "
            "correct"
        ),
        own=("--without-transformer",) if without_transformer else (),
    )


@command.command(
    epilog="Example: stnkit train photos --data cifar10.npz --weights vgg16.weights.h5 "
    "--output photos.keras"
)
@training_options(
    click.option(
        "--weights",
        metavar="none|imagenet|FILE",
        default="imagenet",
        show_default=True,
        help="Weights of VGG16: random, downloaded by Keras, or a file without top.",
    ),
    click.option(
        "--trainable",
        metavar="all|none|BLOCK",
        default="none",
        show_default=True,
        help="What of VGG16 is trained; a block's name (block5) means from that block on.",
    ),
    click.option(
        "--without-transformer",
        is_flag=True,
        help="Keep the transformer at the identity: the same network without it.",
    ),
    data="A .npz file with x_train, y_train, x_test, y_test of CIFAR-10. "
    "Else keras.datasets.cifar10 is used.",
    epochs=8,
    batch_size=100,
)
def photos(
    options: TrainingOptions, weights: str, trainable: str, without_transformer: bool
) -> None:
    """Train VGG16 behind a transformer on CIFAR-10 photos that are rotated by up to 90 degrees.

    After every epoch the state is saved beside OUTPUT; the same command resumes an interrupted run.
    """

    def task(recipe: Recipe) -> Task:
        from stnkit.models.recipes.cifar import load_cifar10
        from stnkit.models.recipes.photos import PhotosTask

        return PhotosTask(
            load_cifar10(options.data),
            recipe,
            None if weights == "none" else weights,
            {"all": True, "none": False}.get(trainable, trainable),
            transformer=not without_transformer,
        )

    own = ["--weights", weights if weights in ("none", "imagenet") else "FILE"]
    own += ["--trainable", trainable, *(["--without-transformer"] if without_transformer else [])]
    run_training(
        "photos",
        options,
        task,
        lambda made: (
            f"{made.accuracy:.1%} of {made.test_count} rotated test photos correct, "
            f"{made.figures['accuracy_upright']:.1%} of upright ones; "
            f"{made.figures['rotation_left_degrees']:.0f} degrees of rotation left (median)"
        ),
        own=tuple(own),
    )
