"""A small prediction service: ``/predict``, ``/healthz`` and ``/metrics`` (``diffmic serve``).

It needs ``pip install "diffmic[service]"``. An exported model (``.onnx``) is served without torch.
"""

from .limits import Limits
from .models import load
from .running import serve
from .web import create_app

__all__ = ["Limits", "create_app", "load", "serve"]
