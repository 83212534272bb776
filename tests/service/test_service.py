"""The service with a stand-in for a model: limits, errors, batches, queue, end."""

import http.client
import io
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
import uvicorn
from service.client import BOUNDARY, form, png, post, send

from diffmic import InputError
from diffmic.service import Limits, create_app

SECRET = "what an image shows"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


class Brightness:
    """A model that says how bright an image is. It waits for ``gate``, and cannot answer 66."""

    name, version, task = "brightness", "1", "multiclass"
    classes, class_names, stages = [0, 1], ["dark", "bright"], ["diffusion", "prior"]

    def __init__(self):
        self.gate, self.batches = threading.Event(), []
        self.gate.set()

    def shares(self, prevalence):
        if not isinstance(prevalence, list):
            raise InputError("prevalence is no list.")
        return np.array(prevalence, float)

    def prepare(self, content, name):
        with Image.open(io.BytesIO(content)) as image:
            level = np.asarray(image.convert("L")).mean()
        if level == 77:
            raise InputError(f"The {name} shows 77.")
        return level, ["It is gray."]

    def answer(self, images, stage, shares):
        assert self.gate.wait(30)
        self.batches.append(len(images))
        if 66 in images:
            raise RuntimeError(SECRET)
        proba = np.array([[1 - level / 255, level / 255] for level in images])
        proba = proba if shares is None else proba * shares / (proba @ shares)[:, None]
        return proba, proba.argmax(axis=1)


@contextmanager
def running(**limits):
    """Port of a service in a thread, and its model."""
    model = Brightness()
    app = create_app(model, Limits(**limits))
    config = uvicorn.Config(app, port=0, log_level="warning", access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1], model, server
    finally:
        model.gate.set()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def usual():
    with running(upload_mb=1, files=3, pixels=10_000) as (port, model, _):
        yield port, model


def gray(level, size=(8, 8)):
    return png(np.full(size, level))


def bomb():
    """A small PNG that tells of 100,000 × 100,000 pixels."""
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def test_an_answer_tells_class_probabilities_model_and_what_it_is_not(usual):
    status, answer, _ = post(usual[0], gray(255), gray(51))
    assert status == 200
    first, second = answer["images"]
    assert first == {
        "predicted": "bright",
        "probabilities": {"dark": 0, "bright": 1},
        "notes": ["It is gray."],
    }
    assert second["predicted"] == "dark"
    assert second["probabilities"]["bright"] == pytest.approx(0.2)
    assert answer["model"]["name"] == "brightness"
    assert answer["stage"] == "diffusion"
    assert "Not a medical device" in answer["note"]


def test_options_are_taken_and_wrong_ones_are_refused(usual):
    port, _ = usual
    _, answer, _ = post(port, gray(51), query="?stage=prior&prevalence=[0.2,0.8]")
    assert answer["stage"] == "prior"
    assert answer["prevalence"] == {"dark": 0.2, "bright": 0.8}
    assert answer["images"][0]["probabilities"]["bright"] == pytest.approx(0.5)
    for query, message in [
        ("?stage=first", "stage is 'first'; this model has diffusion and prior"),
        ("?stge=prior", "no option 'stge'"),
        ("?stage=prior&stage=prior", "twice"),
        ("?prevalence=0.2;0.8", "no JSON"),
        ('?prevalence={"a":1}', "no list"),
        ("?prevalence=" + "[" * 10_000, "no JSON"),
    ]:
        status, answer, _ = post(port, gray(1), query=query)
        assert (status, message in answer["error"]["message"]) == (422, True), answer


@pytest.mark.parametrize(
    ("contents", "status", "message"),
    [
        ([b"\x93NUMPY\x01\x00"], 415, "no image of a known format"),
        ([b""], 422, "empty"),
        ([gray(9)[:20]], 422, "damaged"),
        ([gray(9), gray(77)], 422, "image 1 shows 77"),
        ([gray(9), gray(9, (101, 100))], 413, "100 × 101 pixels"),
        ([bomb()], 413, "pixels"),
        ([gray(9)] * 4, 413, "more than 3 images"),
        ([bytes(2_000_000)], 413, "more than 1 MB"),
    ],
)
def test_files_that_cannot_be_answered_are_told(usual, contents, status, message):
    found, answer, _ = post(usual[0], *contents)
    assert found == status
    assert message in answer["error"]["message"]
    assert answer["error"]["status"] == status
    if len(contents) == 2:
        assert answer["error"]["image"] == 1


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"", FORM, 400, "no file that is complete"),
        (form(filename=""), FORM, 400, "no file that is complete"),
        (form(b"", filename=""), FORM, 400, "no file that is complete"),
        (b"nonsense", FORM, 400, "cannot be read"),
        (form(gray(1), gray(2))[:-40], FORM, 400, "cut short"),
        (b"x", {"Content-Type": "multipart/form-data"}, 400, "boundary"),
        (form(b"eye.png").replace(b'; filename="eye.png"', b""), FORM, 400, "with the @"),
        (gray(1), {"Content-Type": "image/png"}, 415, "image/png; send files as"),
        (gray(1), {}, 415, "missing"),
        (form(b"x" * 2_000_000), FORM, 413, "more than 1 MB"),
    ],
)
def test_requests_that_are_no_form_with_files_are_told(usual, body, headers, status, message):
    found, answer, _ = send(usual[0], "POST", "/predict", body, **headers)
    assert found == status
    assert message in answer["error"]["message"]


def test_a_body_of_unknown_length_is_limited_too(usual):
    def chunks():
        for _ in range(40):
            yield form(bytes(50_000))[:50_000]

    status, _, _ = send(usual[0], "POST", "/predict", chunks(), **FORM)
    assert status == 413


def test_other_paths_and_methods_are_answered_in_json(usual):
    port, _ = usual
    for method, path, status in [
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("GET", "/redoc", 404),
        ("GET", "/predict", 405),
    ]:
        found, answer, _ = send(port, method, path)
        assert found == status
        assert "POST /predict" in answer["error"]["message"]
    _, schema, _ = send(port, "GET", "/openapi.json")
    assert "Not a medical device" in schema["info"]["description"]
    assert "multipart/form-data" in str(schema["paths"]["/predict"])


def test_concurrent_requests_are_answered_together_and_each_with_its_own():
    with running(batch=8, wait_ms=200) as (port, model, _), ThreadPoolExecutor(24) as pool:
        model.gate.clear()
        levels = range(100, 124)
        answers = [pool.submit(post, port, gray(level)) for level in levels]
        until(lambda: measured(port, "open_requests") == 24)
        model.gate.set()
        for level, answer in zip(levels, answers, strict=True):
            status, told, _ = answer.result()
            assert status == 200
            found = told["images"][0]["probabilities"]["bright"]
            assert found == pytest.approx(level / 255)
        assert max(model.batches) == 8
        assert sum(model.batches) == 24
        assert len(model.batches) < 10


def test_a_single_request_does_not_wait_for_others():
    with running(wait_ms=5000) as (port, _, _):
        started = time.perf_counter()
        assert post(port, gray(1))[0] == 200
        assert time.perf_counter() - started < 3


def test_a_failure_is_told_without_what_it_says_and_spoils_no_other_answer(caplog):
    with running(wait_ms=300) as (port, _, _), ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda level: post(port, gray(level)), [65, 66, 67]))
        assert [status for status, _, _ in answers] == [200, 500, 200]
        assert SECRET not in str(answers)
        assert measured(port, "request_seconds_count", status="500") == 1
    assert "RuntimeError" in caplog.records[0].getMessage()
    assert SECRET not in caplog.records[0].getMessage()


def test_a_full_queue_is_told_with_503_and_is_open_again_afterwards():
    with running(queue=2) as (port, model, _), ThreadPoolExecutor(2) as pool:
        model.gate.clear()
        accepted = [pool.submit(post, port, gray(1)) for _ in range(2)]
        until(lambda: measured(port, "open_requests") == 2)
        status, answer, headers = post(port, gray(1))
        assert (status, headers["retry-after"]) == (503, "1")
        assert "2 requests" in answer["error"]["message"]
        model.gate.set()
        assert [each.result()[0] for each in accepted] == [200, 200]
        assert post(port, gray(1))[0] == 200
        assert measured(port, "request_seconds_count", status="503") == 1


def test_what_takes_too_long_is_told():
    with running(timeout=0.5) as (port, model, _):
        model.gate.clear()
        status, answer, headers = post(port, gray(1))
        assert (status, headers["retry-after"]) == (503, "1")
        assert "0.5 s" in answer["error"]["message"]
        model.gate.set()
        assert post(port, gray(1))[0] == 200


def test_an_upload_that_does_not_come_is_told():
    with running(timeout=0.5) as (port, _, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.putrequest("POST", "/predict")
        for name, value in {**FORM, "Content-Length": "1000"}.items():
            connection.putheader(name, value)
        connection.endheaders(b"--")
        assert connection.getresponse().status == 408
        connection.close()


def test_the_end_waits_for_what_was_accepted():
    with running() as (port, model, server), ThreadPoolExecutor(5) as pool:
        model.gate.clear()
        accepted = [pool.submit(post, port, gray(level)) for level in range(5)]
        until(lambda: measured(port, "open_requests") == 5)
        server.should_exit = True
        time.sleep(0.5)
        model.gate.set()
        assert [each.result()[0] for each in accepted] == [200] * 5


def test_health_and_measures(usual):
    port, _ = usual
    post(port, gray(1), gray(2))
    status, answer, _ = send(port, "GET", "/healthz")
    assert (status, answer["status"]) == (200, "ready")
    assert measured(port, "batch_images_sum") >= 2
    assert measured(port, "request_seconds_count", status="200") >= 1
    assert measured(port, "queued_images") == 0


@pytest.mark.parametrize(
    "wrong", [{"files": 0}, {"queue": 1.5}, {"upload_mb": float("nan")}, {"timeout": -1}]
)
def test_limits_are_positive(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is"):
        Limits(**wrong)


def measured(port, name, **labels):
    text = send(port, "GET", "/metrics")[1]
    shown = ",".join(f'{key}="{value}"' for key, value in labels.items())
    start = f"diffmic_{name}{{{shown}}} " if labels else f"diffmic_{name} "
    return sum(float(line[len(start) :]) for line in text.splitlines() if line.startswith(start))


def until(true, seconds=30):
    end = time.perf_counter() + seconds
    while not true():
        assert time.perf_counter() < end
        time.sleep(0.01)
