"""Checks of what parts of one's own give, and errors that name the part."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DiffMICError, PartError
from .architecture import NetworkPlan


def part_name(part: Any) -> str:
    """Name of the class, or of the function, that a part is."""
    kind = part if hasattr(part, "__qualname__") else type(part)
    return f"{kind.__module__}.{kind.__qualname__}"


def part_error(role: str, part: Any, told: str) -> PartError:
    """Error about a part of one's own: what it did, and what is expected."""
    return PartError(f"The {role} of your own, {part_name(part)}, {told}")


def checked(
    role: str, part: Any, what: str, value: Any, shape: Sequence[int | str], like: Tensor
) -> Tensor:
    """A tensor that a part gives, after a check of its type, shape and values; else a PartError.

    ``what`` is its name for the error, such as "an output". In the shape a string stands for any
    length; ``like`` is on the expected device.
    """
    if torch.compiler.is_exporting() and isinstance(value, Tensor):
        return value  # checked when it was tried out
    sizes = ", ".join(map(str, shape))
    expected = f"expected is a tensor of floats of shape ({sizes})"
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise part_error(role, part, f"gave {what} of the type {kind}; {expected}.")
    fits = value.ndim == len(shape) and all(
        isinstance(n, str) or n == found for n, found in zip(shape, value.shape, strict=False)
    )
    if not fits or not value.is_floating_point():
        found = f"of shape {tuple(value.shape)} and type {value.dtype}"
        raise part_error(role, part, f"gave {what} {found}; {expected}.")
    if value.device != like.device:
        there = f"{value.device}; {expected} on {like.device}, as its input is."
        raise part_error(role, part, f"gave {what} on {there}")
    finite = value.detach().isfinite()
    if not value.is_meta and not finite.all():
        first = int((~finite.flatten(1).all(dim=1)).nonzero()[0]) if value.ndim > 1 else 0
        raise part_error(
            role,
            part,
            f"gave {what} with NaN or infinity, first in row {first} of the batch; {expected}, all "
            "of them finite. If its weights were finite when training began, lower the learning "
            "rate.",
        )
    return value


@contextmanager
def naming(role: str, part: Any, fails: str) -> Iterator[None]:
    """Context of a call of a part: what it raises becomes a PartError that names it.

    ``fails`` is what it cannot do, such as "fails on images of shape (2, 3, 32, 32)".
    """
    try:
        yield
    except (DiffMICError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as reason:  # code of the user may raise anything
        if torch.compiler.is_exporting():
            raise
        told = f"{fails}: {type(reason).__name__}: {reason}"
        raise part_error(role, part, told) from reason


def made(role: str, part: Any, plan: NetworkPlan) -> nn.Module:
    """Module of a part: a copy of it, or what the class or function makes from the plan."""
    if isinstance(part, nn.Module):
        return copy.deepcopy(part)
    with naming(role, part, "could not be made from the network's plan"):
        made = part(plan)
    if not isinstance(made, nn.Module):
        told = f"made a {type(made).__name__}; expected is a torch.nn.Module."
        raise part_error(role, part, told)
    return made


def check_repeats(role: str, part: Any, what: str, once: Tensor, again: Tensor) -> None:
    """Check that a part gives the same twice: a prediction must not depend on chance."""
    if not torch.allclose(once, again, atol=1e-5):
        raise part_error(
            role,
            part,
            f"gave other {what} for the same input: it draws at random, so that an image would get "
            "another answer each time. Draw nothing, or from a generator that is given, or that "
            "you seed anew in each call.",
        )
