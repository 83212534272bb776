"""The web application: paths, options, answers and errors as JSON."""

import asyncio
import contextlib
import json
import logging
import os
import time
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..errors import InputError
from .batching import Batcher
from .limits import NOT_A_MEDICAL_DEVICE, Limits
from .measures import CONTENT_TYPE, Measures
from .models import Prepared, Served
from .uploads import Refused, check_image, drain, read_uploads

_PATHS = "POST /predict, GET /healthz, GET /metrics, GET /openapi.json"
_OPTIONS = ("stage", "prevalence")
_DRAIN = 2.0  # seconds in which what is left of a refused upload is read
_LOG = logging.getLogger("diffmic.service")
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            }
        },
    },
    "parameters": [
        {
            "name": "stage",
            "in": "query",
            "schema": {"type": "string", "enum": ["diffusion", "prior"]},
        },
        {
            "name": "prevalence",
            "in": "query",
            "description": 'Class shares as JSON: [0.9, 0.1] or {"healthy": 0.9, "ill": 0.1}.',
            "schema": {"type": "string"},
        },
    ],
    "responses": {
        str(status): {"description": told}
        for status, told in {
            400: "No form, or no file in it.",
            408: "The upload took too long.",
            413: "Too many bytes, images or pixels.",
            415: "No form with files, or a file that is no image of a known format.",
            422: "An image or an option that cannot be used.",
            503: "Too many requests at once; Retry-After says when to come again.",
        }.items()
    },
}


def create_app(model: Served, limits: Limits | None = None) -> FastAPI:
    """Web application that serves a loaded model.

    Parameters
    ----------
    model : Served
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
    app.post("/predict", summary="Predict the classes of images", openapi_extra=_FORM)(
        service.predict
    )
    app.get("/healthz", summary="Whether the model is loaded")(service.health)
    app.get("/metrics", summary="Measures for Prometheus")(service.metrics)
    app.exception_handler(HTTPException)(_unknown)
    return app


class _Service:
    def __init__(self, model: Served, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self.measures = Measures(model.name, model.version)
        self.open = 0  # requests that were accepted and are not answered
        self.arriving = 0  # those whose images are not with the batcher yet
        self.batcher = Batcher(
            self._answers,
            size=limits.batch,
            wait=limits.wait_ms / 1000,
            coming=lambda: self.arriving > 0,
            observed=self.measures.batches.observe,
        )
        self.measures.open.set_function(lambda: self.open)
        self.measures.queued.set_function(self.batcher.queue.qsize)
        self.ready = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Threads that prepare images, and the batcher; both end with the application."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1), "diffmic-prepare") as self.readers:
            batcher = asyncio.create_task(self.batcher.run())
            self.ready = True
            try:
                yield
            finally:
                self.ready = False
                batcher.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await batcher

    async def health(self) -> JSONResponse:
        """200 if the model is loaded and predictions are taken, else 503."""
        told = {"status": "ready" if self.ready else "not ready", "model": self._told()}
        return JSONResponse(told, 200 if self.ready else 503)

    async def metrics(self) -> Response:
        """Requests, errors, times, batches and queue, in the text format of Prometheus."""
        return Response(self.measures.text(), media_type=CONTENT_TYPE)

    async def predict(self, request: Request) -> JSONResponse:
        """Calibrated probabilities and the predicted class of one or several image files."""
        started, n_images = time.perf_counter(), 0
        try:
            answer = await self._predicted(request)
            n_images, response = len(answer["images"]), JSONResponse(answer)
        except Refused as reason:
            if reason.status != 408:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_DRAIN):
                        await drain(request)
            response = _error(reason.status, str(reason), reason.image)
        except ClientDisconnect:
            response = _error(400, "The connection was closed before the request was complete.")
        except Exception as reason:  # its message may tell of an image: it is not kept
            _LOG.error(
                "a request failed: %s\n%s",
                type(reason).__name__,
                "".join(traceback.format_tb(reason.__traceback__)),
            )
            response = _error(500, "The prediction failed; the log of the service says where.")
        self.measures.answered(response.status_code, time.perf_counter() - started, n_images)
        return response

    async def _predicted(self, request: Request) -> dict[str, Any]:
        stage, shares = self._options(request)
        if self.open >= self.limits.queue:
            raise Refused(
                503,
                f"{self.open} requests are being answered, as many as are taken at once. Send "
                "this one again later.",
            )
        self.open += 1
        try:
            async with asyncio.timeout(self.limits.timeout) as whole:
                prepared = await self._arrived(request)
                try:
                    async with asyncio.TaskGroup() as group:
                        asked = [
                            group.create_task(self.batcher.ask(each.image, (stage, shares)))
                            for each in prepared
                        ]
                except ExceptionGroup as reasons:
                    raise reasons.exceptions[0] from None
        except TimeoutError:
            if not whole.expired():
                raise
            raise Refused(
                503,
                f"There was no answer within {self.limits.timeout:g} s: the service has too much "
                "to do. Send the request again later, or with fewer images.",
            ) from None
        finally:
            self.open -= 1
        return {
            "model": self._told(),
            "stage": stage,
            **(
                {}
                if shares is None
                else {"prevalence": dict(zip(self.model.class_names, shares, strict=True))}
            ),
            "images": [
                task.result() | {"notes": list(each.notes)}
                for task, each in zip(asked, prepared, strict=True)
            ],
            "note": NOT_A_MEDICAL_DEVICE,
        }

    async def _arrived(self, request: Request) -> list[Prepared]:
        """Images of a request, ready for the network."""
        self.arriving += 1
        try:
            try:
                async with asyncio.timeout(self.limits.timeout * 0.9):
                    contents = await read_uploads(request, self.limits)
            except TimeoutError:
                raise Refused(
                    408, f"The upload was not complete within {self.limits.timeout * 0.9:g} s."
                ) from None
            loop = asyncio.get_running_loop()
            work = [
                loop.run_in_executor(self.readers, self._prepared, content, index)
                for index, content in enumerate(contents)
            ]
            done = await asyncio.gather(*work, return_exceptions=True)
            for found in done:
                if isinstance(found, BaseException):
                    raise found
            return [found for found in done if isinstance(found, Prepared)]
        finally:
            self.arriving -= 1

    def _prepared(self, content: bytes, index: int) -> Prepared:
        check_image(content, index, self.limits)
        try:
            return self.model.prepare(content, f"image {index}")
        except InputError as reason:
            raise Refused(422, str(reason), index) from None

    def _options(self, request: Request) -> tuple[str, tuple[float, ...] | None]:
        """Stage and class shares that a request asks for."""
        asked = request.query_params
        if unknown := [name for name in asked if name not in _OPTIONS]:
            raise Refused(
                422, f"There is no option {unknown[0][:80]!r}; there are {' and '.join(_OPTIONS)}."
            )
        if twice := [name for name in _OPTIONS if len(asked.getlist(name)) > 1]:
            raise Refused(422, f"The option {twice[0]} is given twice.")
        stage = asked.get("stage", self.model.stages[0])
        if stage not in self.model.stages:
            known = " and ".join(self.model.stages)
            raise Refused(422, f"stage is {stage[:80]!r}; this model has {known}.")
        if "prevalence" not in asked:
            return stage, None
        try:
            shares = self.model.shares(json.loads(asked["prevalence"]))
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
        import numpy as np

        stage, shares = key
        found = self.model.answer(images, stage, None if shares is None else np.array(shares))
        names, classes = self.model.class_names, self.model.classes
        answers = []
        for proba, decision in zip(found.proba.tolist(), found.decisions.tolist(), strict=True):
            if self.model.task == "multilabel":
                label: Any = [n for n, there in zip(names, decision, strict=True) if there]
            else:
                label = names[classes.index(decision)]
            answers.append(
                {"predicted": label, "probabilities": dict(zip(names, proba, strict=True))}
            )
        return answers

    def _told(self) -> Mapping[str, str]:
        return {
            "name": self.model.name,
            "version": self.model.version,
            "task": self.model.task,
            "diffmic": version("diffmic"),
        }


def _error(status: int, message: str, image: int | None = None) -> JSONResponse:
    told = {"status": status, "message": message} | ({} if image is None else {"image": image})
    headers = {"Retry-After": "1"} if status == 503 else {}
    if status in (408, 413):
        headers["Connection"] = "close"  # what is left of the upload is not read
    return JSONResponse({"error": told}, status, headers)


async def _unknown(request: Request, reason: HTTPException) -> JSONResponse:
    response = _error(reason.status_code, f"{reason.detail}. There are {_PATHS}.")
    response.headers.update(reason.headers or {})
    return response
