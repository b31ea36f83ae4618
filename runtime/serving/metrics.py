"""Give the server's counts in Prometheus' text format.

The counts are the ones of the protocol's statistics: one truth, read when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from stnkit.runtime.serving.core import ServingCore
from stnkit.runtime.serving.statistics import Histogram

if TYPE_CHECKING:
    from stnkit.runtime.serving.served_model import ServedModel

__all__ = ["Metrics"]

_LABELS = ("model", "version")


class Metrics:
    """Collects the metrics of a server.

    Args:
        core: the models.
        responses: HTTP status -> answers so far.
    """

    def __init__(self, core: ServingCore, responses: Mapping[int, int]) -> None:
        self._core = core
        self._responses = responses
        self._registry: Any = None

    def text(self) -> tuple[bytes, bytes]:
        """Return the content type and the metrics."""
        # Imported when first asked for: it adds to the start, and not everybody asks.
        from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        if self._registry is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
            PlatformCollector(registry=registry)
            registry.register(self)
            self._registry = registry
        return CONTENT_TYPE_LATEST.encode(), generate_latest(self._registry)

    def collect(self) -> Iterable[Any]:
        """Yield the metric families; prometheus_client calls it."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        core = self._core
        models = core.repository.models()
        yield GaugeMetricFamily(
            "stnkit_ready", "Whether the server wants requests.", value=float(core.ready())
        )
        answers = CounterMetricFamily(
            "stnkit_http_responses", "Answers by HTTP status.", labels=("status",)
        )
        for status, count in sorted(self._responses.items()):
            answers.add_metric((str(status),), count)
        yield answers

        for name, text, attribute in (
            ("requests", "Requests that were answered.", "success"),
            ("items", "Items, as images, that were answered.", "items"),
            ("batches", "Runs of the model.", "executions"),
            ("padded_items", "Items that ran to fill up a batch.", "padded_items"),
        ):
            counter = CounterMetricFamily(f"stnkit_{name}", text, labels=_LABELS)
            for model in models:
                count = getattr(model.statistics, attribute)
                counter.add_metric((model.name, model.version), count)
            yield counter

        failures = CounterMetricFamily(
            "stnkit_failures", "Requests without an answer, by reason.", labels=(*_LABELS, "reason")
        )
        for model in models:
            for reason, count in sorted(dict(model.statistics.failures).items()):
                failures.add_metric((model.name, model.version, reason), count)
        yield failures

        depth = GaugeMetricFamily("stnkit_queue_depth", "Requests that wait.", labels=_LABELS)
        for model in models:
            depth.add_metric((model.name, model.version), model.batcher.depth)
        yield depth

        for name, text, attribute in (
            ("request_seconds", "Time from arrival to answer.", "request_s"),
            ("queue_seconds", "Time in the queue.", "queue_s"),
            ("compute_seconds", "Time of a run of the model.", "compute_s"),
        ):
            family = HistogramMetricFamily(f"stnkit_{name}", text, labels=_LABELS)
            for model in models:
                found: Histogram = getattr(model.statistics, attribute)
                family.add_metric(
                    (model.name, model.version), _cumulative(found), sum_value=found.total
                )
            yield family

        sizes = HistogramMetricFamily(
            "stnkit_batch_size", "Sizes of the batches that ran.", labels=_LABELS
        )
        for model in models:
            sizes.add_metric((model.name, model.version), *_batch_sizes(model))
        yield sizes


def _cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    total = 0
    found: list[tuple[str, float]] = []
    for bound, count in zip((*histogram.bounds, None), list(histogram.counts), strict=True):
        total += count
        found.append(("+Inf" if bound is None else str(bound), total))
    return found


def _batch_sizes(model: ServedModel) -> tuple[list[tuple[str, float]], float]:
    counts = {size: entry[0] for size, entry in dict(model.statistics.batches).items()}
    histogram = Histogram([float(size) for size in model.plan.costs_ns])
    for size, count in counts.items():
        place = next(
            (i for i, bound in enumerate(histogram.bounds) if size <= bound), len(histogram.bounds)
        )
        histogram.counts[place] += count
    return _cumulative(histogram), float(sum(size * count for size, count in counts.items()))
