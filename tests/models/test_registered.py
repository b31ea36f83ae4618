"""Everything that Keras knows by name is imported where models are loaded."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_module_with_registered_classes_is_imported():
    folder = ROOT / "models"
    expected = {
        "stnkit." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in folder.rglob("*.py")
        if "@keras.saving.register_keras_serializable" in path.read_text("utf-8")
    }
    tree = ast.parse((folder / "registered.py").read_text("utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported == expected
    assert len(expected) > 5
