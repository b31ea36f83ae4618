"""Tables that fit where they are printed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on a terminal, and aligned columns in a pipe.

    Args:
        columns: Headings. One that starts with ">" has its column aligned to the right.
        rows: Cells, as many in each row as there are headings.
    """
    headings = [heading.lstrip(">") for heading in columns]
    right = [heading.startswith(">") for heading in columns]
    console = Console()
    if console.is_terminal:
        table = Table()
        for index, (heading, to_right) in enumerate(zip(headings, right, strict=True)):
            cells = [row[index] for row in rows]
            # A narrow terminal may break "2e-07 / 1e-05" at a blank, not the name of a file.
            whole = all(" " not in cell and len(cell) <= console.width // 3 for cell in cells)
            table.add_column(
                heading,
                justify="right" if to_right else "left",
                overflow="fold",
                no_wrap=whole and " " not in heading,
            )
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        return
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]
    for row in [headings, *rows]:
        cells = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def size_text(count_bytes: int) -> str:
    """Return a number of bytes for people: 812 B, 34.5 KB, 1.2 MB (1 KB is 1000 bytes)."""
    size = float(count_bytes)
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def figure_text(value: float) -> str:
    """Return a positive number with three digits, and never in powers of ten."""
    digits = 2 - math.floor(math.log10(value))
    return f"{value:.{max(digits, 0)}f}"


def error_text(error: float | None, tolerance: float) -> str:
    """Return an error beside its tolerance, or a dash where nothing was measured."""
    return "-" if error is None else f"{error:.1e} / {tolerance:.0e}"
