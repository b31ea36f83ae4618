"""What `stnkit inspect` prints."""

from __future__ import annotations

from typing import Any

import click

from stnkit.cli.views.table import print_table, size_text
from stnkit.cli.views.tuning import tuning_line


def print_inspection(found: dict[str, Any]) -> None:
    """Print the signature, the transformers, and each file with its ops."""
    click.echo(f"{found['kind']} {found['name']}")
    source = found.get("source")
    if source and found["kind"] == "bundle":
        versions = found["created_by"]
        made = ", ".join(f"{tool} {versions[tool]}" for tool in ("stnkit", "tensorflow", "keras"))
        click.echo(f"made from {source['file']} ({source['kind']}) with {made}")
    if "inputs" in found:
        _print_signature(found["inputs"], found["outputs"])
        _print_transformers(found["transformers"])
    if "ops" in found:
        click.echo(
            f"\nweights {size_text(found['weights_bytes'])} ({_dtypes(found)}), all constants "
            f"{size_text(found['constants_bytes'])}"
        )
        _print_ops(found["ops"], [])
    for file in found.get("files", []):
        click.echo(
            f"\n{file['file']}: {file['format']}"
            + (f" opset {file['opset']}" if file["opset"] else "")
            + f", {file['precision']}, {size_text(file['bytes'])}, of which weights and constants "
            f"{size_text(file['weights_bytes'])} ({_dtypes(file)})"
        )
        if file.get("autotune"):
            click.echo(tuning_line(file["autotune"], file["sampler"]))
        if found["kind"] == "file":
            _print_signature(file["inputs"], file["outputs"])
            _print_transformers(file["transformers"])
        constant = file["largest_constant"]
        if constant:
            click.echo(
                f"largest constant: {constant['name']} {_shape(constant['shape'])}, "
                f"{size_text(constant['bytes'])}"
            )
        _print_ops(file["ops"], file["foreign_ops"])


def _print_signature(inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
    click.echo("")
    rows = [
        [role, spec["name"], spec["dtype"], _shape(spec["shape"])]
        for role, specs in (("input", inputs), ("output", outputs))
        for spec in specs
    ]
    print_table(["", "name", "dtype", "shape"], rows)


def _print_transformers(transformers: list[dict[str, Any]]) -> None:
    if not transformers:
        click.echo("\nspatial transformers: none found")
        return
    click.echo("\nspatial transformers:")
    for item in transformers:
        details = [f"{kind} {_shape(item[kind])}" for kind in ("theta", "warped") if kind in item]
        click.echo(f"  {item['name']}" + (f": {', '.join(details)}" if details else ""))


def _print_ops(ops: dict[str, int], foreign: list[str]) -> None:
    listed = ", ".join(f"{name} {count}" for name, count in ops.items())
    click.echo(f"{sum(ops.values())} ops: {listed}")
    if foreign:
        click.echo(f"not standard: {', '.join(foreign)}")


def _dtypes(record: dict[str, Any]) -> str:
    return ", ".join(f"{count} {name}" for name, count in record["weight_dtypes"].items()) or "none"


def _shape(shape: list[Any]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"
