"""``diffmic app`` and ``diffmic serve``: a model in the browser, and over HTTP."""

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import DiffMICError, InputError
from .loading import Device, ModelArgument, load
from .messages import say

LOOPBACK = "127.0.0.1"


def page(
    model: ModelArgument,
    examples: Annotated[
        Path | None, typer.Option(help="Folder of images that can be chosen on the page.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = LOOPBACK,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port; else the first free from 7860.")
    ] = None,
    max_upload: Annotated[int, typer.Option(min=1, help="Largest upload, in MB.")] = 20,
    open_browser: Annotated[bool, typer.Option("--open", help="Open a browser.")] = False,
    space: Annotated[
        Path | None,
        typer.Option(help="Write the files of a Hugging Face Space to a folder, and end."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Open a page in the browser: upload an image, see probabilities, doubt and regions.

    Only this computer can reach it, unless --host says otherwise. Uploads are deleted after
    a minute, and nothing is logged. Needs pip install 'diffmic[app]'.

    **Examples**

        diffmic app diffmic-v2-aptos --open
        diffmic app my-model --examples photos/ --port 8000
        diffmic app my-model --space my-space
    """
    from ..app import launch, write_space

    if space is not None:
        for file in write_space(model, space, load(model, "cpu")):
            typer.echo(str(file))
        return
    if host != LOOPBACK:
        say(f"{host} may be reached by others: the page asks for no password.")
    signal.signal(signal.SIGTERM, _ended)  # so that uploads are deleted then, too
    try:
        launch(
            model,
            examples=examples,
            host=host,
            port=port,
            max_file_size=f"{max_upload}mb",
            device=device,
            open_browser=open_browser,
        )
    except OSError as reason:
        if "port" not in str(reason).lower():
            raise
        taken = "No port is free" if port is None else f"The port {port} is taken"
        raise InputError(f"{taken}; choose another by --port.") from reason


def _ended(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


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
