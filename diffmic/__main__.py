"""``python -m diffmic`` is the command ``diffmic``."""

from .cli import app

app(prog_name="diffmic")
