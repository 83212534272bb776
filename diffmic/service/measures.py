"""Measures of a service in the text format of Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Measures:
    """Times of requests, sizes of batches, and what waits; nothing global changes."""

    def __init__(self, open_requests: Callable[[], int], queued: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram(
            "diffmic_request_seconds",
            "Seconds from request to answer, by status.",
            ["status"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "diffmic_batch_images",
            "Images that the model answered at once.",
            buckets=_IMAGES,
            registry=self.registry,
        )
        for name, told, value in [
            ("open_requests", "Requests accepted and not answered yet.", open_requests),
            ("queued_images", "Images that wait for the model.", queued),
        ]:
            Gauge(f"diffmic_{name}", told, registry=self.registry).set_function(value)
