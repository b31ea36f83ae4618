"""Write `transform_vectors.npz`: what OpenCV, SciPy and kornia compute for the transforms.

Run it again after a change here, in an environment of its own:

    python -m venv /tmp/oracle
    /tmp/oracle/bin/pip install opencv-python-headless==5.0.0.93 scipy==1.17.1 kornia==0.9.0 numpy
    /tmp/oracle/bin/python tests/oracles/make_transform_vectors.py

Coordinates are computed in float64 and stored in float32; images are float32 throughout. The same
seed and versions give the same file, byte by byte.

Layout of the file:
    provenance              JSON text: versions, seed, how the file was made
    warp_I_image            [height, width] float32
    warp_I_size             (height, width) of the output
    warp_I_matrix           [3, 3] float64, output to input pixels; the last row of an affine
                            one is 0, 0, 1
    warp_I_points           [h * w, 2] OpenCV perspectiveTransform of the output's pixels
    warp_I_zeros, _border, _reflection, _mirrored, _nearest
                            [h, w] OpenCV warpAffine or warpPerspective, linear: BORDER_CONSTANT,
                            _REPLICATE, _REFLECT, _REFLECT_101; nearest: BORDER_CONSTANT
    corners_I_from, _to     [4, 2] pixels of the output, and the input's that they are read from
    corners_I_matrix        [3, 3] OpenCV getPerspectiveTransform of the two
    kornia_I_image, _theta, _size
                            [height, width] image, [3, 3] normalised homography with
                            align_corners=True, output size
    kornia_I_values         [h, w] kornia homography_warp
    kornia_I_pixels         [3, 3] kornia denormalize_homography of theta's inverse, inverted again
    spline_I_theta          [K * K, 2] where the control points are read from
    spline_I_values         [2, h, w, 2] SciPy RBFInterpolator, thin plate spline of degree 1, at
                            the pixels of SPLINE_SIZE: align_corners False, then True
    flow_I_velocity         [2, 3] linear velocity field, v(p) = A p + b
    flow_I_matrix           [2, 3] SciPy expm: the flow of the field after one unit of time
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import kornia
import numpy as np
import numpy.typing as npt
import scipy
import torch

Array = npt.NDArray[np.float64]

SEED = 19890106
DEFAULT_OUTPUT = Path(__file__).with_name("transform_vectors.npz")

WARP_SIZES = (((7, 9), (6, 8)), ((5, 4), (8, 7)), ((8, 8), (8, 8)), ((6, 1), (5, 4)))
BORDERS = {
    "zeros": cv2.BORDER_CONSTANT,
    "border": cv2.BORDER_REPLICATE,
    "reflection": cv2.BORDER_REFLECT,
    "mirrored": cv2.BORDER_REFLECT_101,
}
SPLINE_POINTS = (2, 3, 4, 5, 8)
SPLINE_SIZE = (6, 9)


def output_pixels(size: tuple[int, int]) -> Array:
    """Return the pixels (x, y) of an image of `(height, width)`, row by row, [h * w, 2]."""
    y, x = np.meshgrid(*(np.arange(side, dtype=np.float64) for side in size), indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def draw_matrix(
    rng: np.random.Generator, size: tuple[int, int], output: tuple[int, int], projective: bool
) -> Array:
    """Draw a matrix from output to input pixels that keeps clear of the horizon."""
    linear = np.diag([size[1] / output[1], size[0] / output[0]]) + rng.uniform(-0.3, 0.3, (2, 2))
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = rng.uniform(-1.5, 1.5, 2)
    if projective:
        matrix[2, :2] = rng.uniform(-0.03, 0.03, 2)
    return matrix


def warp_arrays(rng: np.random.Generator, name: str, projective: bool, sizes: tuple) -> dict:
    """Return what OpenCV makes of one image and matrix."""
    size, output = sizes
    image = rng.random(size, np.float32)
    matrix = draw_matrix(rng, size, output, projective)
    pixels = output_pixels(output)
    points = cv2.perspectiveTransform(pixels[np.newaxis], matrix)[0]
    warp, given = (cv2.warpPerspective, matrix) if projective else (cv2.warpAffine, matrix[:2])
    whole = (output[1], output[0])

    def warped(interpolation: int, border: int) -> npt.NDArray[np.float32]:
        flags = interpolation | cv2.WARP_INVERSE_MAP
        return warp(image, given, whole, flags=flags, borderMode=border)

    return {
        f"{name}_image": image,
        f"{name}_size": np.array(output),
        f"{name}_matrix": matrix,
        f"{name}_points": points.astype(np.float32),
        f"{name}_nearest": warped(cv2.INTER_NEAREST, cv2.BORDER_CONSTANT),
        **{f"{name}_{kind}": warped(cv2.INTER_LINEAR, flag) for kind, flag in BORDERS.items()},
    }


def corners_arrays(rng: np.random.Generator, name: str) -> dict[str, npt.NDArray]:
    """Return the homography that OpenCV finds for four pairs of points."""
    height, width = 12, 16
    square = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1.0]])
    read = square + rng.uniform(-3, 3, (4, 2))
    matrix = cv2.getPerspectiveTransform(square.astype(np.float32), read.astype(np.float32))
    return {
        f"{name}_from": square,
        f"{name}_to": read.astype(np.float32),
        f"{name}_matrix": matrix,
    }


def kornia_arrays(rng: np.random.Generator, name: str, sizes: tuple) -> dict[str, npt.NDArray]:
    """Return kornia's warp by a normalised homography, and that homography in pixels."""
    size, output = sizes
    image = rng.random(size, np.float32)
    theta = np.eye(3) + rng.uniform(-0.2, 0.2, (3, 3))
    theta /= theta[2, 2]
    values = kornia.geometry.transform.homography_warp(
        torch.tensor(image, dtype=torch.float64)[None, None],
        torch.tensor(theta)[None],
        output,
        align_corners=True,
    )
    forward = torch.tensor(np.linalg.inv(theta))[None]
    pixels = kornia.geometry.conversions.denormalize_homography(forward, size, output)[0].numpy()
    inverse = np.linalg.inv(pixels)
    return {
        f"{name}_image": image,
        f"{name}_theta": theta,
        f"{name}_size": np.array(output),
        f"{name}_values": values[0, 0].numpy().astype(np.float32),
        f"{name}_pixels": inverse / inverse[2, 2],
    }


def spline_arrays(rng: np.random.Generator, name: str, points: int) -> dict[str, npt.NDArray]:
    """Return SciPy's thin plate spline through K x K control points."""
    axis = np.linspace(-1, 1, points)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    control = np.stack([x.ravel(), y.ravel()], axis=1)
    theta = (control + rng.normal(0, 0.4 / points, control.shape)).astype(np.float32)
    spline = scipy.interpolate.RBFInterpolator(
        control, theta.astype(np.float64), kernel="thin_plate_spline", degree=1
    )
    sides = np.array(SPLINE_SIZE[::-1])
    pixels = output_pixels(SPLINE_SIZE)
    values = [spline((2 * pixels + 1) / sides - 1), spline(2 * pixels / (sides - 1) - 1)]
    return {
        f"{name}_theta": theta,
        f"{name}_values": np.reshape(values, (2, *SPLINE_SIZE, 2)).astype(np.float32),
    }


def flow_arrays(rng: np.random.Generator, name: str) -> dict[str, npt.NDArray]:
    """Return the flow of a linear velocity field that contracts: no point leaves the frame."""
    velocity = np.zeros((3, 3))
    velocity[:2, :2] = rng.uniform(-0.3, 0.3, (2, 2)) - 0.7 * np.eye(2)
    velocity[:2, 2] = rng.uniform(-0.1, 0.1, 2)
    return {
        f"{name}_velocity": velocity[:2].astype(np.float32),
        f"{name}_matrix": scipy.linalg.expm(velocity)[:2].astype(np.float32),
    }


def build(seed: int = SEED) -> dict[str, npt.NDArray]:
    """Return every array of the file by its key."""
    rng = np.random.default_rng(seed)
    provenance = {
        "made_by": "tests/oracles/make_transform_vectors.py",
        "opencv": cv2.__version__,
        "scipy": scipy.__version__,
        "kornia": kornia.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "seed": seed,
    }
    arrays: dict[str, npt.NDArray] = {
        "provenance": np.array(json.dumps(provenance, sort_keys=True))
    }
    for index, sizes in enumerate(WARP_SIZES * 2):
        arrays |= warp_arrays(rng, f"warp_{index}", index >= len(WARP_SIZES), sizes)
    for index in range(3):
        arrays |= corners_arrays(rng, f"corners_{index}")
    for index, sizes in enumerate(WARP_SIZES[:3]):
        arrays |= kornia_arrays(rng, f"kornia_{index}", sizes)
    for index, points in enumerate(SPLINE_POINTS):
        arrays |= spline_arrays(rng, f"spline_{index}", points)
    for index in range(3):
        arrays |= flow_arrays(rng, f"flow_{index}")
    return arrays


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    output: Path = parser.parse_args().output
    arrays = build()
    np.savez_compressed(output, **arrays)
    print(f"{output}: {len(arrays)} arrays, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
