"""What Prometheus is told."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from export.serving.batching import Observer
    from export.serving.repository import Repository

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_MODEL = ("model", "version")


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "potstill_requests", "Requests by route and status",
            ("route", "status"), registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "potstill_request_seconds", "From a request's head to its answer",
            ("route",), buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        # To find them by their labels takes as long as to count.
        self._of_request = functools.cache(
            lambda route, status: (self.requests.labels(route, status), self.seconds.labels(route))
        )
        self.batch = Histogram(
            "potstill_batch_texts", "Texts that went through a model at once",
            _MODEL, buckets=_TEXTS, registry=self.registry,
        )  # fmt: skip
        self.waited = Histogram(
            "potstill_queue_seconds", "How long the oldest text of a batch had waited",
            _MODEL, buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.inference = Histogram(
            "potstill_inference_seconds", "What a batch took, tokenizing included",
            _MODEL, buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count and time a request."""
        counter, times = self._of_request(route, status)
        counter.inc()
        times.observe(seconds)

    def of_model(self, name: str, version: str) -> Observer:
        """Return what hears of the batches of a version."""
        return _OfModel(*(each.labels(name, version) for each in self._by_model()))

    def forget(self, name: str, version: str) -> None:
        """Drop what was counted of a version that is gone: else they gather without end."""
        for each in self._by_model():
            each.remove(name, version)

    def watch(self, repository: Repository) -> None:
        """Show which versions answer, and how many texts wait for each."""
        self.registry.register(_Gauges(repository))

    def text(self) -> bytes:
        """Return everything in Prometheus' format."""
        return generate_latest(self.registry)

    def _by_model(self) -> tuple[Histogram, Histogram, Histogram]:
        return self.batch, self.waited, self.inference


class _OfModel:
    def __init__(self, batch: Histogram, waited: Histogram, inference: Histogram) -> None:
        self._batch, self._waited, self._inference = batch, waited, inference

    def batch(self, texts: int, waited: float, seconds: float) -> None:
        self._batch.observe(texts)
        self._waited.observe(waited)
        self._inference.observe(seconds)


class _Gauges(Collector):
    """Read at every scrape, so that a version that is gone leaves nothing behind."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return self.collect()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        ready = GaugeMetricFamily("potstill_model_ready", "Versions that answer", labels=_MODEL)
        queue = GaugeMetricFamily("potstill_queue_texts", "Texts that wait", labels=_MODEL)
        for each in list(self._repository.served()):
            ready.add_metric([each.name, each.version], 1)
            queue.add_metric([each.name, each.version], each.batcher.waiting)
        yield ready
        yield queue
