"""Write `grid_sample_vectors.npz`: what PyTorch computes for the sampler and the grid generator.

Run it again after a change here or in `sampling_cases.py`, in an environment of its own:

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch==2.13.0 numpy
    /tmp/torch/bin/python tests/oracles/make_grid_sample_vectors.py

Torch computes in float64 from the float32 inputs, so that the stored values carry one rounding
and not an order of summation. The same seed and versions give the same file, byte by byte.

Layout of the file, M being the number of modes:
    provenance               JSON text: versions, seed, how the file was made
    modes                    [M, 3] text: interpolation, padding_mode, "True" or "False"
    volume_modes             the same for volumes
    smooth_I_image, _grid, _upstream                    a case, see `sampling_cases.Case`
    smooth_I_values          [M, batch, *output, channels]
    smooth_I_grad_image      [M, batch, *spatial, channels]   of sum(values * upstream)
    smooth_I_grad_grid       [M, batch, *output, n]           of sum(values * upstream)
    exact_I_image, _grid, _values    as above; gradients are not defined on kinks
    volume_I_…, volumeexact_I_…      smooth and exact cases of volumes, in the volume modes
    affine_I_theta           [batch, 2, 3]
    affine_I_upstream        [batch, height, width, 2]
    affine_I_values          [2, batch, height, width, 2]     align_corners False, then True
    affine_I_grad_theta      [2, batch, 2, 3]                 of sum(values * upstream)
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sampling_cases import (
    MODES,
    VOLUME_MODES,
    Array,
    Case,
    draw_exact,
    draw_smooth,
    draw_smooth_of_random_shape,
    draw_theta,
)

Mode = tuple[str, str, bool]

SEED = 20150605
DEFAULT_OUTPUT = Path(__file__).with_name("grid_sample_vectors.npz")

# (batch, spatial, channels, output): the shapes that a sampler gets wrong first.
SMOOTH_SHAPES = (
    (1, (1, 1), 1, (3, 4)),
    (2, (1, 6), 3, (3, 3)),
    (2, (5, 1), 4, (4, 2)),
    (1, (2, 2), 1, (5, 5)),
    (2, (4, 7), 1, (5, 6)),
    (2, (6, 5), 3, (5, 4)),
    (3, (5, 4), 4, (1, 7)),
)
RANDOM_SHAPES = 5
EXACT_SHAPES = (
    ((4, 8), 1, (8, 12)),
    ((5, 3), 1, (8, 12)),
    ((3, 4), 3, (6, 8)),
    ((2, 1), 4, (5, 6)),
    ((1, 2), 1, (5, 6)),
    ((1, 1), 3, (4, 5)),
)
VOLUME_SHAPES = (
    (1, (1, 1, 1), 1, (2, 2, 3)),
    (2, (1, 4, 1), 3, (2, 3, 2)),
    (2, (3, 4, 5), 1, (3, 2, 4)),
    (1, (4, 2, 3), 4, (2, 4, 3)),
)
VOLUME_EXACT_SHAPES = (
    ((4, 2, 8), 1, (5, 6, 7)),
    ((3, 5, 2), 1, (5, 6, 7)),
    ((1, 1, 4), 3, (3, 4, 5)),
)
AFFINE_SHAPES = ((1, (1, 1)), (2, (1, 5)), (2, (4, 1)), (3, (4, 6)), (1, (7, 3)))


def sample(
    case: Case, interpolation: str, padding_mode: str, align_corners: bool
) -> tuple[Array, Array, Array]:
    """Return torch's values and gradients for a case, computed in float64.

    Returns:
        Values [batch, *output, channels], and the gradients of `sum(values * upstream)` by image
        [batch, *spatial, channels] and by grid [batch, *output, n]; all float32.
    """
    image = torch.tensor(case.image, dtype=torch.float64, requires_grad=True)
    grid = torch.tensor(case.grid, dtype=torch.float64, requires_grad=True)
    upstream = torch.tensor(case.upstream, dtype=torch.float64)
    sampled = torch.nn.functional.grid_sample(
        torch.movedim(image, -1, 1),
        grid,
        mode=interpolation,
        padding_mode=padding_mode,
        align_corners=align_corners,
    )
    values = torch.movedim(sampled, 1, -1)
    torch.sum(values * upstream).backward()
    return _float32(values), _float32(image.grad), _float32(grid.grad)


def affine_grid(
    theta: Array, output_size: tuple[int, ...], upstream: Array, align_corners: bool
) -> tuple[Array, Array]:
    """Return torch's grid [batch, *output_size, 2] and the gradient [batch, 2, 3] by theta."""
    matrix = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    size = [len(theta), 1, *output_size]
    with warnings.catch_warnings():
        # One pixel a side: torch warns that this changed in 1.3. Its centre, 0, is what we mean.
        warnings.filterwarnings("ignore", message=".*unit-size grids.*")
        grid = torch.nn.functional.affine_grid(matrix, size, align_corners=align_corners)
    torch.sum(grid * torch.tensor(upstream, dtype=torch.float64)).backward()
    return _float32(grid), _float32(matrix.grad)


def build(seed: int = SEED) -> dict[str, npt.NDArray]:
    """Return every array of the file by its key."""
    rng = np.random.default_rng(seed)
    provenance = {
        "made_by": "tests/oracles/make_grid_sample_vectors.py",
        "torch": torch.__version__,
        "numpy": np.__version__,
        "seed": seed,
        "computed_in": "float64",
    }
    arrays: dict[str, npt.NDArray] = {
        "provenance": np.array(json.dumps(provenance, sort_keys=True)),
        "modes": np.array([[str(part) for part in mode] for mode in MODES]),
        "volume_modes": np.array([[str(part) for part in mode] for mode in VOLUME_MODES]),
    }
    cases = [draw_smooth(rng, *shape) for shape in SMOOTH_SHAPES]
    cases += [draw_smooth_of_random_shape(rng) for _ in range(RANDOM_SHAPES)]
    for index, case in enumerate(cases):
        arrays |= _smooth_arrays(f"smooth_{index}", case, MODES)
    for index, (spatial, channels, output) in enumerate(EXACT_SHAPES):
        case = draw_exact(rng, spatial, channels, output)
        arrays |= _exact_arrays(f"exact_{index}", case, MODES)
    for index, (batch, output) in enumerate(AFFINE_SHAPES):
        theta = draw_theta(rng, batch)
        upstream = rng.uniform(-1, 1, (batch, *output, 2)).astype(np.float32)
        results = [affine_grid(theta, output, upstream, aligned) for aligned in (False, True)]
        arrays |= {
            f"affine_{index}_theta": theta,
            f"affine_{index}_upstream": upstream,
            f"affine_{index}_values": np.stack([values for values, _ in results]),
            f"affine_{index}_grad_theta": np.stack([gradient for _, gradient in results]),
        }
    for index, shape in enumerate(VOLUME_SHAPES):
        arrays |= _smooth_arrays(f"volume_{index}", draw_smooth(rng, *shape), VOLUME_MODES)
    for index, (spatial, channels, output) in enumerate(VOLUME_EXACT_SHAPES):
        case = draw_exact(rng, spatial, channels, output)
        arrays |= _exact_arrays(f"volumeexact_{index}", case, VOLUME_MODES)
    return arrays


def _smooth_arrays(name: str, case: Case, modes: Sequence[Mode]) -> dict[str, npt.NDArray]:
    values, grad_image, grad_grid = zip(*(sample(case, *mode) for mode in modes), strict=True)
    return {
        f"{name}_image": case.image,
        f"{name}_grid": case.grid,
        f"{name}_upstream": case.upstream,
        f"{name}_values": np.stack(values),
        f"{name}_grad_image": np.stack(grad_image),
        f"{name}_grad_grid": np.stack(grad_grid),
    }


def _exact_arrays(name: str, case: Case, modes: Sequence[Mode]) -> dict[str, npt.NDArray]:
    return {
        f"{name}_image": case.image,
        f"{name}_grid": case.grid,
        f"{name}_values": np.stack([sample(case, *mode)[0] for mode in modes]),
    }


def _float32(tensor: torch.Tensor | None) -> Array:
    assert tensor is not None
    result: Array = tensor.detach().numpy().astype(np.float32)
    return result


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
