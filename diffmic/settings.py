"""Settings of torch around a call, such as autocast, do not get into it."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")
_AUTOCAST = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def own_settings() -> Iterator[None]:
    """Context in which torch has its usual settings, whatever those around it are.

    Gradients are recorded, there is no autocast, and new tensors are float32 and on the CPU. The
    type of new tensors is a setting of the whole process: other threads see float32, too, until the
    last of these contexts ends. Deterministic algorithms and numbers of threads are as the caller
    wants them.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in _AUTOCAST:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_SINGLE)
        yield


def undisturbed(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a function that runs in :func:`own_settings`."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with own_settings():
            return function(*args, **kwargs)

    return inside


class _Single:
    """Context in which new tensors are float32; the last to leave it restores what was before."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, torch.float32

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.before = torch.get_default_dtype()
                if self.before != torch.float32:
                    torch.set_default_dtype(torch.float32)
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0 and self.before != torch.float32:
                torch.set_default_dtype(self.before)


_SINGLE = _Single()
