"""The web application: paths, options, answers and errors as JSON."""

import asyncio
import contextlib
import json
import logging
import os
import time
import traceback
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..errors import InputError
from .batching import Batcher
from .limits import NOT_A_MEDICAL_DEVICE, Limits
from .models import Served
from .uploads import Refused, check_image, read_uploads

_PATHS = "POST /predict, GET /healthz, GET /metrics, GET /openapi.json"
_OPTIONS = ("stage", "prevalence")
# Upper ends of the bins of what is measured.
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)
_LOG = logging.getLogger("diffmic.service")
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_FORM = {"schema": {"type": "object", "properties": {"image": _FILES}}}


def create_app(model: Served, limits: Limits | None = None) -> FastAPI:
    """Web application that serves a loaded model.

    Parameters
    ----------
    model : OnnxModel or TorchModel
        See :func:`diffmic.service.load`.
    limits : Limits or None
        None: those of ``Limits()``.
    """
    service = _Service(model, limits or Limits())
    app = FastAPI(
        title=f"diffmic: {model.name}",
        version=version("diffmic"),
        description=NOT_A_MEDICAL_DEVICE,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lambda _: service.running(),
        # Newer versions of FastAPI send measures elsewhere if the environment says so.
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    app.post(
        "/predict",
        summary="Predict the classes of images",
        # Parameters of FastAPI for files write them to disk.
        openapi_extra={
            "requestBody": {"required": True, "content": {"multipart/form-data": _FORM}}
        },
        responses={
            "4XX": {"description": "A request that cannot be answered; the message says why."},
            "503": {"description": "Too many requests; Retry-After says when to come again."},
        },
    )(service.predict)
    app.get("/healthz", summary="Whether the model is loaded")(service.health)
    app.get("/metrics", summary="Measures for Prometheus")(service.metrics)
    app.exception_handler(HTTPException)(_error)
    return app


class _Service:
    def __init__(self, model: Served, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self.open = 0  # requests that were accepted and are not answered
        self.coming = 0  # uploads and images that are being read
        self.batcher = Batcher(
            self._answers,
            size=limits.batch,
            wait=limits.wait_ms / 1000,
            coming=lambda: self.coming > 0,
        )
        self.registry = CollectorRegistry()  # of its own: nothing global changes
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
            ("open_requests", "Requests accepted and not answered yet.", lambda: self.open),
            ("queued_images", "Images that wait for the model.", self.batcher.queue.qsize),
        ]:
            Gauge(f"diffmic_{name}", told, registry=self.registry).set_function(value)
        self.told = {
            "name": model.name,
            "version": model.version,
            "task": model.task,
            "diffmic": version("diffmic"),
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Threads that prepare images, and the batcher; both end with the application."""
        with (
            warnings.catch_warnings(),
            ThreadPoolExecutor(min(8, os.cpu_count() or 1), "diffmic-prepare") as self.readers,
        ):
            warnings.simplefilter("ignore")  # of decoders, which show contents of files
            batcher = asyncio.create_task(self.batcher.run())
            try:
                yield
            finally:
                batcher.cancel()

    async def health(self) -> JSONResponse:
        """The model; the address does not listen before it is loaded."""
        return JSONResponse({"status": "ready", "model": self.told})

    async def metrics(self) -> Response:
        """Times of requests by status, batches and queue, in the text format of Prometheus."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def predict(
        self,
        request: Request,
        stage: Annotated[str | None, Query(description="diffusion or prior.")] = None,
        prevalence: Annotated[
            str | None,
            Query(description='Class shares as JSON: [0.9, 0.1] or {"healthy": 0.9, "ill": 0.1}.'),
        ] = None,
    ) -> JSONResponse:
        """Calibrated probabilities and the predicted class of one or several image files."""
        started, status = time.perf_counter(), 500
        try:
            answer = await self._predicted(request, self._key(request, stage, prevalence))
            status = 200
        except HTTPException as reason:
            status = reason.status_code
            raise
        except ClientDisconnect:
            status = 400
            raise Refused(
                400, "The connection was closed before the request was complete."
            ) from None
        except Exception as reason:  # its message may tell of an image: it is not kept
            trace = "".join(traceback.format_tb(reason.__traceback__))
            _LOG.error("a request failed: %s\n%s", type(reason).__name__, trace)
            raise Refused(
                500, "The prediction failed; the log of the service says where."
            ) from None
        finally:
            self.seconds.labels(status).observe(time.perf_counter() - started)
        return JSONResponse(answer)

    async def _predicted(
        self, request: Request, key: tuple[str, tuple[float, ...] | None]
    ) -> dict[str, Any]:
        if self.open >= self.limits.queue:
            raise Refused(
                503,
                f"{self.open} requests are being answered, as many as are taken at once. Send "
                "this one again later.",
            )
        contents = None
        self.open += 1
        try:
            async with asyncio.timeout(self.limits.timeout):
                with self._reading():
                    contents = await read_uploads(request, self.limits)
                async with asyncio.TaskGroup() as group:
                    images = [
                        group.create_task(self._image(content, index, key))
                        for index, content in enumerate(contents)
                    ]
        except ExceptionGroup as reasons:
            raise reasons.exceptions[0] from None
        except TimeoutError:
            span = f"within {self.limits.timeout:g} s"
            if contents is None:
                raise Refused(408, f"The upload was not complete {span}.") from None
            raise Refused(
                503,
                f"There was no answer {span}: the service has too much to do. Send the request "
                "again later, or with fewer images.",
            ) from None
        finally:
            self.open -= 1
        stage, shares = key
        answer: dict[str, Any] = {"model": self.told, "stage": stage}
        if shares is not None:
            answer["prevalence"] = dict(zip(self.model.class_names, shares, strict=True))
        return answer | {"images": [each.result() for each in images], "note": NOT_A_MEDICAL_DEVICE}

    async def _image(self, content: bytes, index: int, key: Any) -> dict[str, Any]:
        """Answer for an image of a request."""
        with self._reading():
            image, notes = await asyncio.get_running_loop().run_in_executor(
                self.readers, self._prepared, content, index
            )
        answer: dict[str, Any] = await self.batcher.ask(image, key)
        return answer | {"notes": notes}

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        self.coming += 1
        try:
            yield
        finally:
            self.coming -= 1

    def _prepared(self, content: bytes, index: int) -> tuple[Any, list[str]]:
        try:
            check_image(content, index, self.limits)
            return self.model.prepare(content, f"image {index}")
        except InputError as reason:
            raise Refused(422, str(reason), index) from None

    def _key(
        self, request: Request, stage: str | None, prevalence: str | None
    ) -> tuple[str, tuple[float, ...] | None]:
        """Stage and class shares that a request asks for."""
        asked = request.query_params
        if unknown := [name for name in asked if name not in _OPTIONS]:
            raise Refused(
                422, f"There is no option {unknown[0][:80]!r}; there are {' and '.join(_OPTIONS)}."
            )
        if twice := [name for name in _OPTIONS if len(asked.getlist(name)) > 1]:
            raise Refused(422, f"The option {twice[0]} is given twice.")
        stage = self.model.stages[0] if stage is None else stage
        if stage not in self.model.stages:
            known = " and ".join(self.model.stages)
            raise Refused(422, f"stage is {stage[:80]!r}; this model has {known}.")
        if prevalence is None:
            return stage, None
        try:
            shares = self.model.shares(json.loads(prevalence))
        except InputError as reason:
            raise Refused(422, str(reason)) from None
        except (ValueError, RecursionError):
            raise Refused(
                422,
                'prevalence is no JSON; give [0.9, 0.1] or {"healthy": 0.9, "ill": 0.1}, '
                "percent-encoded.",
            ) from None
        return stage, None if shares is None else tuple(shares.tolist())

    def _answers(self, images: Sequence[Any], key: Any) -> list[dict[str, Any]]:
        """Answer for each image of a batch; runs in the thread of the model."""
        stage, shares = key
        proba, decisions = self.model.answer(
            images, stage, None if shares is None else np.array(shares)
        )
        self.batches.observe(len(images))
        names, classes = self.model.class_names, self.model.classes
        answers = []
        for shown, decision in zip(proba.tolist(), decisions.tolist(), strict=True):
            if self.model.task == "multilabel":
                label: Any = [n for n, there in zip(names, decision, strict=True) if there]
            else:
                label = names[classes.index(decision)]
            answers.append(
                {"predicted": label, "probabilities": dict(zip(names, shown, strict=True))}
            )
        return answers


async def _error(_: Request, reason: HTTPException) -> JSONResponse:
    told = {"status": reason.status_code, "message": reason.detail}
    if not isinstance(reason, Refused):
        told["message"] = f"{reason.detail}. There are {_PATHS}."
    elif reason.image is not None:
        told["image"] = reason.image
    return JSONResponse({"error": told}, reason.status_code, reason.headers)
