"""``diffmic serve``."""

from typing import Annotated

import typer

from ..errors import DiffMICError
from .loading import Device


def serve(
    model: Annotated[
        str,
        typer.Argument(
            help="File of 'diffmic export' (.onnx; torch is not needed), folder of a saved model, "
            "or its name."
        ),
    ],
    host: Annotated[str, typer.Option(help="Address; 0.0.0.0: from other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8000,
    upload_mb: Annotated[float, typer.Option(help="Largest size of a request, in MB.")] = 32.0,
    files: Annotated[int, typer.Option(help="Most images in a request.")] = 32,
    pixels: Annotated[int, typer.Option(help="Most pixels of an image.")] = 50_000_000,
    queue: Annotated[int, typer.Option(help="Requests accepted at once; others get 503.")] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds in which a request is answered.")] = 30.0,
    batch: Annotated[int, typer.Option(help="Most images the model is given at once.")] = 32,
    wait_ms: Annotated[
        float, typer.Option(help="Milliseconds an image waits for others on their way.")
    ] = 5.0,
    device: Device = "auto",
) -> None:
    """Serve predictions over HTTP: POST /predict, GET /healthz, GET /metrics.

    Files are sent as multipart/form-data; the answer is JSON. Nothing is written to disk, and
    neither names nor pixels are logged. SIGTERM and Ctrl-C end it when everything that was
    accepted has been answered.

    **Examples**

        diffmic serve diffmic-v2-aptos
        diffmic serve model.onnx --port 9000 --queue 200
        curl -F image=@eye.png http://127.0.0.1:8000/predict
    """
    try:
        from ..service import Limits
        from ..service import serve as run
    except ModuleNotFoundError as reason:
        if str(reason.name).startswith("diffmic"):
            raise
        raise DiffMICError(f'{reason.name} is missing: pip install "diffmic[service]".') from reason
    limits = Limits(
        upload_mb=upload_mb,
        files=files,
        pixels=pixels,
        queue=queue,
        timeout=timeout,
        batch=batch,
        wait_ms=wait_ms,
    )
    run(model, host=host, port=port, limits=limits, device=device)
