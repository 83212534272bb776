"""Running the service: one process, one address, and an end that finishes what was accepted."""

import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import uvicorn

from ..errors import InputError
from .limits import NOT_A_MEDICAL_DEVICE, Limits
from .models import Served, load
from .web import create_app

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


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
        The model cannot be loaded.
    OSError
        The address cannot be used.
    """
    limits = limits or Limits()
    with _address(host, port) as address:
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
        shown = f"[{host}]" if ":" in host else host
        _say(f"{loaded.name} on http://{shown}:{address.getsockname()[1]} (POST /predict).")
        _say(NOT_A_MEDICAL_DEVICE)
        if host not in _LOOPBACK:
            _say(
                "It can be reached from other machines, without encryption or passwords: put a "
                "proxy before it that has both."
            )
        with _ended_by_signals():
            uvicorn.Server(config).run(sockets=[address])


def _warm_up(model: Served) -> None:
    """Answer for an image, so that the first request does not wait for what is done once."""
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.fromarray(np.full((64, 64), 128, np.uint8)).save(file, "PNG")
    prepared = model.prepare(file.getvalue(), "image")
    model.answer([prepared.image], model.stages[0], None)


@contextmanager
def _address(host: str, port: int) -> Iterator[socket.socket]:
    """Socket of an address, which does not listen yet."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as reason:
        raise InputError(f"The host {host!r} is unknown: {reason}. Give 127.0.0.1.") from reason
    with socket.socket(family, kind, protocol) as address:
        if os.name == "posix":
            address.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            address.bind(place)
        except OSError as reason:
            raise InputError(
                f"{host}:{port} cannot be used: {reason.strerror}. Another program may listen "
                "there: give another --port, or 0 for a free one."
            ) from reason
        yield address


@contextmanager
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
