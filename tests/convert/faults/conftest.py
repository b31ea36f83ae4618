"""Lets the modules of this folder import one another.

With `--import-mode=importlib` pytest does not do that itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
