"""The service as a process on the loopback address, with a model of torch and one exported."""

import http.client
import io
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import small, stripes

pytest.importorskip("fastapi")
from service.client import BOUNDARY, form, png, post, send

from diffmic import DiffMICClassifier

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")]
sys.path.append(str(ROOT / "benchmarks"))
from serve import load, served  # noqa: E402


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Estimator, folder and exported file of a model."""
    folder = tmp_path_factory.mktemp("served")
    names = ["across", "along", "plain"]
    clf = DiffMICClassifier(**small(backbone="test_resnet", pretrained=False, class_names=names))
    clf.fit(*stripes(60)).save_pretrained(folder / "model")
    return clf, folder / "model", clf.export_onnx(folder / "model.onnx")


@pytest.fixture(scope="module", params=["torch", "onnx"])
def service(models, request):
    """Port of a service, the estimator, and by how much probabilities may differ from its own."""
    clf, folder, file = models
    with served(str(folder if request.param == "torch" else file)) as port:
        yield port, clf, 1e-6 if request.param == "torch" else 5e-3  # it resizes by Pillow


def test_answers_are_those_of_the_estimator_alone_and_together(service):
    port, clf, tolerance = service
    # An exported file resizes by Pillow, which can move a region where two are nearly alike.
    size, tolerance = ((40, 50), tolerance) if tolerance < 1e-5 else ((32, 32), 1e-4)
    images = [png(image) for image in stripes(12, seed=3, size=size)[0]]
    for stage in ("diffusion", "prior"):
        expected = clf.predict_proba(images, stage=stage)
        decided = clf.predict(images, stage=stage)
        _, together, _ = post(port, *images, query=f"?stage={stage}")
        with ThreadPoolExecutor(12) as pool:
            alone = list(pool.map(lambda x: post(port, x, query=f"?stage={stage}"), images))  # noqa: B023
        for answers in (together["images"], [answer["images"][0] for _, answer, _ in alone]):
            found = [list(answer["probabilities"].values()) for answer in answers]
            np.testing.assert_allclose(found, expected, atol=tolerance)
            named = [clf.class_names_[c] for c in decided]
            assert [answer["predicted"] for answer in answers] == named


def test_prevalence_is_that_of_the_estimator_or_refused(service):
    port, clf, tolerance = service
    image, shares = png(stripes(1)[0][0]), {"across": 0.8, "along": 0.1, "plain": 0.1}
    query = "?prevalence=" + json.dumps(shares).replace(" ", "").replace('"', "%22")
    status, answer, _ = post(port, image, query=query)
    if tolerance > 1e-5:
        assert status == 422
        assert "exported" in answer["error"]["message"]
        return
    found = list(answer["images"][0]["probabilities"].values())
    np.testing.assert_allclose(found, clf.predict_proba([image], prevalence=shares)[0], atol=1e-6)
    status, answer, _ = post(port, image, query="?prevalence=[1]")
    assert (status, "1 shares" in answer["error"]["message"]) == (422, True)


def test_every_format_is_read(service):
    port, clf, tolerance = service
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    contents = []
    for name in ("PNG", "JPEG", "TIFF", "BMP", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, name)
        contents.append(file.getvalue())
    data = pytest.importorskip("pydicom.data")
    contents.append(Path(data.get_testdata_file("MR_small.dcm")).read_bytes())
    status, answer, _ = post(port, *contents)
    assert status == 200
    found = [list(each["probabilities"].values()) for each in answer["images"]]
    np.testing.assert_allclose(found, clf.predict_proba(contents), atol=tolerance)
    for wrong, status in [(contents[0][:900], 422), (contents[-1][:600], 422), (b"nothing", 415)]:
        assert post(port, wrong)[0] == status


def test_a_thousand_requests_at_once_lose_none(service):
    port, _, _ = service
    found = load(port, [png(image) for image in stripes(10)[0]], 1000, 48)
    assert found.statuses == {200: 1000}
    print(found.row())
    text = send(port, "GET", "/metrics")[1]
    assert "diffmic_open_requests 0.0" in text


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_end_answers_what_was_accepted_and_nothing_is_told_of_images(models):
    command = [sys.executable, "-m", "diffmic", "serve", models[2], "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        first = process.stderr.readline()
        port = int(first.rpartition(":")[2].partition(" ")[0])
        until_ready(port)
        body = form(png(stripes(1)[0][0]))
        connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for _ in range(12)]
        for connection in connections:
            connection.putrequest("POST", "/predict")
            connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:-20])
        while "open_requests 12.0" not in send(port, "GET", "/metrics")[1]:
            pass
        process.send_signal(signal.SIGTERM)
        until_refused(port)
        for connection in connections:
            connection.send(body[-20:])
        assert [each.getresponse().status for each in connections] == [200] * 12
        for connection in connections:
            connection.close()
        assert process.wait(30) == 0
        told = first + process.stderr.read()
    finally:
        process.kill()
    assert "Not a medical device" in told
    assert "eye.png" not in told
    assert len(told.splitlines()) == 2


def test_wrong_models_and_addresses_are_told_in_a_line(models, service):
    def told(*arguments):
        command = [sys.executable, "-m", "diffmic", "serve", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        return done.stderr

    assert "no file 'nowhere.onnx'" in told("nowhere.onnx", "--port", 0)
    assert "cannot be used" in told(models[2], "--port", service[0])
    assert "no.such.host.invalid:8000 cannot be used" in told(
        models[2], "--host", "no.such.host.invalid"
    )
    assert "files is 0" in told(models[2], "--files", 0)


PROGRAM = """
import sys
for name in ("torch", "torchvision", "timm", "sklearn", "scipy", "safetensors", "huggingface_hub"):
    sys.modules[name] = None  # importing it fails
from diffmic.service import create_app, load
model = load(sys.argv[1])
image = model.prepare(open(sys.argv[2], "rb").read(), "image")
print(model.answer([image[0]], "prior", None)[0].shape, create_app(model).title)
"""


def test_an_exported_model_is_served_without_torch(models, tmp_path):
    (tmp_path / "image.png").write_bytes(png(stripes(1)[0][0]))
    command = [sys.executable, "-c", PROGRAM, models[2], tmp_path / "image.png"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "(1, 3) diffmic: model\n", done.stderr


def until_ready(port):
    while True:
        try:
            return send(port, "GET", "/healthz")
        except ConnectionRefusedError:
            pass


def until_refused(port):
    while True:
        try:
            send(port, "GET", "/healthz")
        except OSError:
            return
