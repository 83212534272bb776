"""Load on the prediction service: what is lost, how long answers take, and how many come a second.

    diffmic export diffmic-v2-aptos --out model.onnx
    python benchmarks/serve.py model.onnx diffmic-v2-aptos --image eye.png

Each model is served by a process of its own on the loopback address, by `diffmic serve MODEL`; the
requests come from threads of this process, on as many connections that stay open. A concurrency of
1 is one request after the other.
"""

import http.client
import io
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

_BOUNDARY = "9c1f7e"
_KIND = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}


@dataclass(frozen=True)
class Load:
    """What came of many requests: seconds of those that were answered, and all statuses."""

    seconds: Sequence[float]
    statuses: Counter[int]
    wall: float

    def row(self) -> str:
        """Lost, median and 99th percentile in ms, requests per second."""
        n_requests = self.statuses.total()
        spans = sorted(1000 * s for s in self.seconds)
        last = spans[min(len(spans) - 1, int(0.99 * len(spans)))]
        lost = n_requests - self.statuses[200]
        rate = n_requests / self.wall
        return f"{n_requests} | {lost} | {statistics.median(spans):.1f} | {last:.1f} | {rate:.1f}"


@contextmanager
def served(model: str, *options: str) -> Iterator[int]:
    """Port of a service in a process of its own, which is ended as an orchestrator ends it."""
    command = [sys.executable, "-m", "diffmic", "serve", model, "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        told = []
        while not (found := re.search(r"http://[^ ]*:(\d+)", told[-1] if told else "")):
            told.append(process.stderr.readline())
            if not told[-1]:
                raise SystemExit("".join(told))
        port = int(found[1])
        threading.Thread(target=process.stderr.read, daemon=True).start()
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/healthz")
                if connection.getresponse().status == 200:
                    break
            except ConnectionRefusedError:
                time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def load(port: int, contents: Sequence[bytes], n_requests: int, concurrency: int) -> Load:
    """Send requests of one image each, by as many threads as the concurrency."""
    lock, numbers = threading.Lock(), iter(range(n_requests))
    seconds: list[float] = []
    statuses: Counter[int] = Counter()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return connection.close()
            body = _form(contents[number % len(contents)])
            started = time.perf_counter()
            try:
                connection.request("POST", "/predict", body, _KIND)
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except (OSError, http.client.HTTPException):
                status = 0
                connection.close()
            with lock:
                statuses[status] += 1
                if status == 200:
                    seconds.append(time.perf_counter() - started)

    threads = [threading.Thread(target=client) for _ in range(concurrency)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(seconds, statuses, time.perf_counter() - started)


def _form(content: bytes) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    return head.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()


def _generated(side: int = 512) -> bytes:
    """JPEG of a disc with noise."""
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    noise = np.random.default_rng(0).normal(0, 12, (side, side, 3))
    disc = 150.0 * (np.hypot(rows, columns) < 0.45)[..., None] * [1, 0.5, 0.2] + noise
    file = io.BytesIO()
    Image.fromarray(disc.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=92)
    return file.getvalue()


def main(
    models: Annotated[list[str], typer.Argument(help="What 'diffmic serve' takes.")],
    image: Annotated[
        list[Path] | None, typer.Option(help="Images to send; without any, a generated JPEG.")
    ] = None,
    requests: Annotated[int, typer.Option(min=1)] = 1000,
    concurrency: Annotated[list[int], typer.Option(min=1)] = [1, 32],  # noqa: B006
) -> None:
    """Print a table for each model and concurrency."""
    contents = [path.read_bytes() for path in image or ()] or [_generated()]
    cores, busy = os.cpu_count(), os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(
        f"{cores} cores, load {busy:.1f} before the run, {len(contents[0]) / 1000:.0f} kB an image"
    )
    print("| model | concurrency | requests | lost | median ms | p99 ms | requests/s |")
    print("|---|---|---|---|---|---|---|")
    for model in models:
        with served(model) as port:
            for number in concurrency:
                load(port, contents, 3 * number, number)  # warm-up
                found = load(port, contents, requests, number)
                print(f"| {model} | {number} | {found.row()} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
