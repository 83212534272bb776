"""A client of the service: forms with files, and answers."""

import http.client
import io
import json
from typing import Any

import numpy as np
from PIL import Image

BOUNDARY = "a5c1e0d7"


def form(*contents: bytes, name: str = "image", filename: str = "eye.png") -> bytes:
    """Body of a form with files."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"'
    parts = [f"{head}\r\n\r\n".encode() + content + b"\r\n" for content in contents]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def png(pixels: Any) -> bytes:
    """Content of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
    return file.getvalue()


def send(
    port: int, method: str, path: str, body: Any = None, timeout: float = 60, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Status, answer (of JSON, else text) and headers of a request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, headers)
        return _answer(connection)
    finally:
        connection.close()


def post(port: int, *contents: bytes, query: str = "", timeout: float = 60) -> Any:
    """Answer for files, as :func:`send` gives it."""
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return send(port, "POST", f"/predict{query}", form(*contents), timeout, **kind)


def _answer(connection: http.client.HTTPConnection) -> tuple[int, Any, dict[str, str]]:
    answer = connection.getresponse()
    text, found = answer.read(), dict(answer.getheaders())
    is_json = found.get("content-type") == "application/json"
    return answer.status, json.loads(text) if is_json else text.decode(), found
