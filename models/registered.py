"""Imports everything of stnkit that Keras knows by name, so that saved models can be loaded.

`keras.saving.load_model` finds only the classes of modules that somebody has imported. A test
compares the list with the tree.
"""

from __future__ import annotations

import stnkit.models.composition
import stnkit.models.grids
import stnkit.models.inverse_layer
import stnkit.models.layer
import stnkit.models.sampling.grid_sample
import stnkit.models.theta_head
import stnkit.models.zoo.pixels
import stnkit.models.zoo.registration_losses
import stnkit.models.zoo.segmentation  # noqa: F401
