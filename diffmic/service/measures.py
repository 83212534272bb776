"""Measures of a service in the text format of Prometheus."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Measures:
    """Counts and times of requests; a registry of its own, so that nothing global changes."""

    def __init__(self, model: str, version: str) -> None:
        self.registry = CollectorRegistry()

        def made(kind: type, name: str, told: str, **more: object) -> Any:
            return kind(f"diffmic_{name}", told, registry=self.registry, **more)

        status = {"labelnames": ["status"]}
        self.requests = made(Counter, "requests", "Requests to /predict by status.", **status)
        self.errors = made(Counter, "errors", "Requests that were not answered.", **status)
        self.images = made(Counter, "images", "Images that were answered.")
        self.seconds = made(
            Histogram, "request_seconds", "Seconds from request to answer (200).", buckets=_SECONDS
        )
        self.batches = made(
            Histogram, "batch_images", "Images that the model was given at once.", buckets=_IMAGES
        )
        self.open = made(Gauge, "open_requests", "Requests accepted and not answered yet.")
        self.queued = made(Gauge, "queued_images", "Images that wait for the model.")
        made(Gauge, "model_info", "The model.", labelnames=["name", "version"]).labels(
            model, version
        ).set(1)

    def answered(self, status: int, seconds: float, n_images: int = 0) -> None:
        """Count a request."""
        self.requests.labels(status).inc()
        if status != 200:
            self.errors.labels(status).inc()
            return
        self.seconds.observe(seconds)
        self.images.inc(n_images)

    def text(self) -> bytes:
        """All measures."""
        return generate_latest(self.registry)
