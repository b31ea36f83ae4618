"""Load a server on this machine with requests, and measure what it answers and when."""

from stnkit.runtime.timing.load.answers import answer_problem
from stnkit.runtime.timing.load.measure import measure_load, run_load
from stnkit.runtime.timing.load.plan import LoadPlan
from stnkit.runtime.timing.load.request import get_request, infer_request, post_request
from stnkit.runtime.timing.load.result import LoadResult, Quantiles

__all__ = [
    "LoadPlan",
    "LoadResult",
    "Quantiles",
    "answer_problem",
    "get_request",
    "infer_request",
    "measure_load",
    "post_request",
    "run_load",
]
