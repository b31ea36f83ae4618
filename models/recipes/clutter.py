"""Digits placed at random on clutter made of other digits, and the masks of the digits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from stnkit.models.digits.distortion import Distortion, warp
from stnkit.models.training.errors import DataError


@dataclass(frozen=True)
class Clutter:
    """Ranges from which a scene is drawn: a digit, where it lies, and what lies around it.

    Attributes:
        side_px: Side of the scene, at least that of a digit's image.
        placement: How the digit is moved from the middle of the scene.
        pieces: How many pieces of other digits are strewn over the scene.
        piece_px: Side of a piece.
        noise: Standard deviation of the noise that is added to every pixel.
    """

    side_px: int = 64
    placement: Distortion = field(
        default_factory=lambda: Distortion(rotation_degrees=45.0, scale=(0.7, 1.1), shift_px=16.0)
    )
    pieces: int = 8
    piece_px: int = 8
    noise: float = 0.05

    def check(self, digits: Any) -> None:
        """Check that scenes can be made of digits `[count, height, width]`.

        Raises:
            DataError: If there is one digit alone.
        """
        if len(digits) < 2:
            raise DataError(
                f"there is {len(digits)} digit to train or test on: expected two at least, because "
                "the clutter of each is made of the others"
            )

    def draw(self, rng: np.random.Generator, digits: Any, chosen: Any) -> tuple[Any, Any]:
        """Return a scene and its mask for each chosen digit.

        Args:
            rng: Where everything random comes from.
            digits: `[count, height, width]` uint8, as `check` wants them; the pieces come from all
                of them but the one that is placed.
            chosen: `[n]` numbers of the digits to be placed.

        Returns:
            Scenes `[n, side, side, 1]` float32 in [0, 1] and masks `[n, side, side]` uint8, 1 where
            the placed digit is brighter than half.
        """
        placed = self.place(digits[chosen], self.placement.draw(rng, len(chosen), self.side_px))
        scene = np.maximum(placed, self._strewn(rng, digits, chosen))
        scene += rng.normal(0, self.noise, scene.shape).astype(np.float32)
        return np.clip(scene, 0, 1)[..., np.newaxis], (placed > 0.5).astype(np.uint8)

    def place(self, digits: Any, theta: Any) -> Any:
        """Return digits `[n, height, width]` uint8 moved from the middle of an empty scene.

        Args:
            digits: The digits.
            theta: `[n, 2, 3]`, from scene to scene.

        Returns:
            `[n, side, side]` float32 in [0, 1].
        """
        height, width = digits.shape[1:]
        top, left = (self.side_px - height) // 2, (self.side_px - width) // 2
        middle = np.zeros((len(digits), self.side_px, self.side_px), np.uint8)
        middle[:, top : top + height, left : left + width] = digits
        placed: Any = warp(middle, theta).numpy()[..., 0]
        return placed

    def _strewn(self, rng: np.random.Generator, digits: Any, chosen: Any) -> Any:
        """Return pieces of other digits on black, `[n, side, side]` float32 in [0, 1]."""
        shape = (len(chosen), self.pieces)
        # An offset of 1 at least: never a piece of the digit that is to be found.
        source = (chosen[:, None] + rng.integers(1, len(digits), shape)) % len(digits)
        height, width = digits.shape[1:]
        steps = np.arange(self.piece_px)

        def span(low: int, high: int) -> Any:
            """Return the pixels of a piece along one axis, `[n, pieces, piece]`."""
            return rng.integers(low, high + 1, shape)[..., None] + steps

        # From the middle of a digit: its margin is empty.
        margin_y, margin_x = height // 7, width // 7
        rows = span(margin_y, height - self.piece_px - margin_y)[..., :, None]
        columns = span(margin_x, width - self.piece_px - margin_x)[..., None, :]
        pieces = digits[source[..., None, None], rows, columns].astype(np.float32) / 255
        last = self.side_px - self.piece_px
        scene = np.zeros((len(chosen), self.side_px, self.side_px), np.float32)
        number = np.arange(len(chosen)).reshape(-1, 1, 1, 1)
        down, across = span(0, last)[..., :, None], span(0, last)[..., None, :]
        np.maximum.at(scene, (number, down, across), pieces)
        return scene

    def to_json(self) -> dict[str, Any]:
        """Return the ranges as JSON."""
        return asdict(self)
