"""All contenders, in the order of the tables.

A further form of stnkit is one more entry: `layer_contender(name, make)` for a Keras layer that is
called on [image, theta], `function_contender(name, make)` for a function of TensorFlow ops.
"""

from __future__ import annotations

from benchmarks.peers.contender import Contender
from benchmarks.peers.gather_nd import GATHER_ND
from benchmarks.peers.grid_sample_op import GRID_SAMPLE
from benchmarks.peers.map_coordinates import MAP_COORDINATES
from benchmarks.peers.opencv import OPENCV
from benchmarks.peers.stnkit_layer import STNKIT, STNKIT_CHANNELS_FIRST, STNKIT_COMPILED
from benchmarks.peers.torch_grid_sample import PYTORCH

BASELINE = GATHER_ND.name
"""The contender that ratios are taken to: it exists on every target and for every case."""

CONTENDERS: tuple[Contender, ...] = (
    STNKIT,
    GATHER_ND,
    STNKIT_COMPILED,
    STNKIT_CHANNELS_FIRST,
    MAP_COORDINATES,
    GRID_SAMPLE,
    PYTORCH,
    OPENCV,
)
