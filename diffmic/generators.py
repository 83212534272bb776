"""Random generators that code of the user draws from, seeded for a call and put back after it."""

import random
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .random import derived_seed, global_generators

MOST_OBJECTS = 5000  # looked at in the search for generators
LONGEST = 100  # entries of a list or dict that are looked at: longer ones hold data

Generator = np.random.Generator | np.random.RandomState | random.Random | torch.Generator
_KINDS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
_PLAIN = (str, bytes, int, float, complex, bool, type(None), Tensor, np.ndarray, np.generic)
_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))


@contextmanager
def seeded(user: Any, seed: int) -> Iterator[None]:
    """Context in which all generators that code of a user draws from have a state given by a seed.

    They are torch's, numpy's and Python's global generators, and those that a transform or Dataset
    holds: in its attributes and those of its parts, as transforms of MONAI and albumentations have
    them, in its closure, and in the global variables that it names. Afterwards all are as they were
    before. The global generators are those of all threads: two of these contexts wait for each
    other. A generator that is made inside, without a seed, is not reached.

    Parameters
    ----------
    user : callable, Dataset or DataLoader
    seed : int
    """
    with ExitStack() as stack:
        stack.enter_context(global_generators())
        # Not a LocalRNG: what the user's own torch.manual_seed gives must be what follows it.
        for device, own in enumerate(_of_torch()):
            stack.callback(_reseed(own, seed if device == 0 else derived_seed(seed, 0, device)))
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
        stack.callback(random.setstate, random.getstate())
        np.random.seed(derived_seed(seed, 1) % 2**32)  # noqa: NPY002
        random.seed(derived_seed(seed, 2))
        for number, generator in enumerate(generators_of(user)):
            stack.callback(_reseed(generator, derived_seed(seed, 3, number)))
        yield


def _of_torch() -> list[torch.Generator]:
    """torch's global generators: of the CPU, and of the GPUs that this process uses."""
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return [torch.default_generator, *(torch.cuda.default_generators if used else ())]


def _reseed(generator: Generator, seed: int) -> Callable[[], object]:
    """Give a generator the state of a seed; returns a function that restores its present state."""
    if isinstance(generator, torch.Generator):
        kept = generator.get_state()
        generator.manual_seed(seed % 2**63)
        return partial(generator.set_state, kept)
    if isinstance(generator, random.Random):
        before = generator.getstate()
        generator.seed(seed)
        return partial(generator.setstate, before)
    if isinstance(generator, np.random.RandomState):
        state = generator.get_state()
        generator.seed(seed % 2**32)
        return partial(generator.set_state, state)
    bits: Any = generator.bit_generator
    own = bits.state
    bits.state = type(bits)(seed).state
    return partial(setattr, bits, "state", own)


def generators_of(user: Any) -> list[Generator]:
    """Generators that code of a user can reach, in an order that depends on its structure alone."""
    found: list[Generator] = []
    seen: dict[int, Any] = {}  # holds the objects, so that no two have the same id
    waiting = [user]
    while waiting and len(seen) < MOST_OBJECTS:
        value = waiting.pop()
        if isinstance(value, _PLAIN) or id(value) in seen:
            continue
        seen[id(value)] = value
        if not isinstance(value, _KINDS):
            waiting.extend(_parts_of(value))
        elif not isinstance(value, random.SystemRandom):  # has no state
            found.append(value)
    return found


def _parts_of(value: Any) -> Iterable[Any]:
    """What a value consists of, as far as it may hold generators."""
    if isinstance(value, dict):
        return list(value.values())[:LONGEST]
    if isinstance(value, (list, tuple)):
        return value[:LONGEST]
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, types.FunctionType):
        return _parts_of_function(value)
    if isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
        return []
    return _parts_of_instance(value)


def _parts_of_function(function: types.FunctionType) -> list[Any]:
    """Closure, defaults and global variables of a function; for libraries, none of these."""
    if _is_of_a_library(function.__module__):
        return []
    parts = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    parts += [function.__defaults__, function.__kwdefaults__, vars(function)]
    names = _names_in(function.__code__)
    for name in names:
        value = function.__globals__.get(name)
        parts.append(value)
        if isinstance(value, types.ModuleType) and not _is_of_a_library(value.__name__):
            parts += [vars(value)[other] for other in names if other in vars(value)]
    return parts


def _parts_of_instance(value: Any) -> list[Any]:
    """Attributes of an instance, generators of its classes, and methods that the user wrote."""
    kind: Any = type(value)
    parts, slots = _parts_of_class(kind)
    return [
        *getattr(value, "__dict__", {}).values(),
        *(getattr(value, s, None) for s in slots),
        *parts,
    ]


@lru_cache(maxsize=1000)
def _parts_of_class(kind: type) -> tuple[list[Any], list[str]]:
    """Generators and methods of a class and of those it is derived from; names of its slots."""
    parts: list[Any] = []
    slots: list[str] = []
    for each in kind.__mro__:
        own = not _is_of_a_library(each.__module__)
        for name, value in vars(each).items():
            if isinstance(value, types.MemberDescriptorType):
                slots.append(name)
            elif isinstance(value, _KINDS) or (own and isinstance(value, types.FunctionType)):
                parts.append(value)
    return parts, slots


def _names_in(code: types.CodeType) -> list[str]:
    """Global names and attributes in a code object and in the functions inside it."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _names_in(constant)
    return names


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1000)
def _is_of_a_library(module: str | None) -> bool:
    """Whether a module is installed, and not code of the user: a notebook, a script, a checkout."""
    top = (module or "").partition(".")[0]
    if top in ("diffmic", "builtins", *sys.stdlib_module_names) and top != "__main__":
        return True
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    return file is not None and file.startswith(_LIBRARIES)
