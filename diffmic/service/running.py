"""Running the service: one process, one address, and an end that finishes what was accepted."""

import contextlib
import io
import logging
import math
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image

from ..errors import InputError
from .limits import NOT_A_MEDICAL_DEVICE, Limits
from .models import Served, load
from .web import create_app


def serve(
    model: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    device: str = "auto",
) -> None:
    """Serve a model until SIGINT or SIGTERM, then answer what was accepted, and return.

    Parameters
    ----------
    model : str or Path
        An ``.onnx`` file, the folder of a saved model, or its name.
    host, port : str, int
        Address; port 0 is a free one, which is told on standard error.
    limits : Limits or None
        None: those of ``Limits()``.
    device : str
        PyTorch device.

    Raises
    ------
    ModelFileError, HubError, InputError
        The model cannot be loaded, or the address cannot be used.
    """
    limits = limits or Limits()
    loaded = load(model, device)
    _warm_up(loaded)
    config = uvicorn.Config(
        create_app(loaded, limits),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=math.ceil(limits.timeout) + 1,
    )
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it may tell what files hold
    with _listening(host, port) as address, _ended_by_signals():
        shown = f"[{host}]" if ":" in host else host
        _say(f"{loaded.name} on http://{shown}:{address.getsockname()[1]} (POST /predict).")
        _say(NOT_A_MEDICAL_DEVICE)
        if host not in ("127.0.0.1", "localhost", "::1"):
            _say(
                "It can be reached from other machines, without encryption or passwords: put a "
                "proxy before it that has both."
            )
        uvicorn.Server(config).run(sockets=[address])


def _warm_up(model: Served) -> None:
    """Answer for an image, so that the first request does not wait for what is done once."""
    file = io.BytesIO()
    Image.new("L", (64, 64), 128).save(file, "PNG")
    with contextlib.suppress(InputError):  # a model of another range of pixels
        image: Any = model.prepare(file.getvalue(), "image")[0]
        model.answer([image], model.stages[0], None)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as reason:
        raise InputError(
            f"The address {host}:{port} cannot be used: {reason}. Give --host 127.0.0.1, and "
            "another --port, or 0 for a free one."
        ) from reason


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """After its shutdown uvicorn raises the signal again, which here means nothing more."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, lambda *_: None) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)


def _say(text: str) -> None:
    print(f"diffmic: {text}", file=sys.stderr, flush=True)
