"""``diffmic app``."""

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import say
from .loading import Device, ModelArgument, load

LOOPBACK = "127.0.0.1"


def app(
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
