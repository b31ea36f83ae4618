"""The process of a load: a plan on its standard input, the result on its standard output."""

from __future__ import annotations

import gc
import sys

from stnkit.runtime.errors import StnkitError
from stnkit.runtime.timing.load.measure import WRONG_USE, run_load
from stnkit.runtime.timing.load.plan import LoadPlan

__all__ = ["main"]


def main() -> int:
    """Run the load; return 2 where the plan cannot be carried out."""
    try:
        plan = LoadPlan.from_bytes(sys.stdin.buffer.read())
        gc.collect()
        gc.disable()  # a pause of its own would be taken for one of the server's
        result = run_load(plan)
    except StnkitError as exc:
        print(exc, file=sys.stderr)
        return WRONG_USE
    content = memoryview(result.to_bytes())
    while content:  # unbuffered, as PYTHONUNBUFFERED makes it, a pipe takes a part at a time
        content = content[sys.stdout.buffer.write(content) :]
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
