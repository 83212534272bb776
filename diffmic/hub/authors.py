"""Checkpoints of the authors of DiffMIC-v2: reading them, and their names in terms of ours."""

import os
import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import InputError, ModelFileError

WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which frameworks nest tensors
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
_SHOWN = 8  # names in an error


class Sizes(NamedTuple):
    """Sizes of a network, read from the shapes of its denoiser."""

    num_classes: int
    feature_dim: int
    n_regions: int
    num_train_timesteps: int


def read_checkpoint(file: str | Path, *, key: str | None = None) -> dict[str, Tensor]:
    """Tensors of a checkpoint of safetensors or of ``torch.save``, without what is wrapped around.

    Only tensors and plain containers are read (``weights_only=True``); no code is executed.
    Tensors nested as ``{"state_dict": …}``, ``{"model": …}`` or in a list, and names that begin
    with ``module.`` or ``_orig_mod.``, are unwrapped.

    Parameters
    ----------
    file : str or Path
    key : str or None
        Key of the tensors in the file, with dots for keys in keys; None: found.

    Raises
    ------
    ModelFileError
        The file is missing, damaged, holds more than tensors, or it is not clear which are meant.
    """
    path = Path(file).expanduser()
    if not os.path.isfile(path):
        raise ModelFileError(f"There is no file {str(path)!r}. Give the path of a checkpoint.")
    tensors: dict[str, Tensor] = {}
    for name, tensor in _unwrapped(_loaded(path), key, str(path)).items():
        short = name
        while short.startswith(PREFIXES):
            short = short.split(".", 1)[1]
        if short in tensors:
            raise ModelFileError(f"{str(path)!r} holds {short!r} twice, also as {name!r}.")
        tensors[short] = tensor
    return tensors


def _loaded(path: Path) -> Any:
    with path.open("rb") as content:
        start = content.read(9)
    try:
        if start[8:] == b"{":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as reason:
        raise ModelFileError(
            f"{str(path)!r} holds more than tensors, or is no checkpoint: "
            f"{str(reason).splitlines()[0]} Code in it is not executed here. If you trust the "
            "file, load it where its code is at hand, and save its state dict alone with "
            "torch.save or safetensors."
        ) from reason
    except Exception as reason:  # a damaged file makes the unpickler raise anything
        raise ModelFileError(f"{str(path)!r} is no checkpoint, or damaged: {reason}") from reason


def _unwrapped(found: Any, key: str | None, where: str) -> dict[str, Tensor]:
    """The one state dict in what a file holds."""
    for part in key.split(".") if key is not None else ():
        if not isinstance(found, Mapping) or part not in found:
            raise ModelFileError(
                f"{where!r} has no {part!r} of the key {key!r}; it has {_keys(found)}."
            )
        found = found[part]
    while not _is_state_dict(found):
        inside: dict[Any, Any] = {}
        if isinstance(found, Mapping):
            inside = {name: found[name] for name in WRAPPERS if name in found}
        elif isinstance(found, list | tuple):
            inside = {n: each for n, each in enumerate(found) if _is_state_dict(each)}
        if len(inside) != 1:
            raise ModelFileError(
                f"{where!r} holds {_keys(found)}, among which {len(inside)} may be the tensors of "
                "a network. Give the key under which they are, key='…'."
            )
        found = next(iter(inside.values()))
    return dict(found)


def _keys(found: Any) -> Any:
    """What a file holds, for an error."""
    return list(found)[:_SHOWN] if isinstance(found, Mapping) else type(found).__name__


def _is_state_dict(found: Any) -> bool:
    return (
        isinstance(found, Mapping)
        and len(found) > 0
        and all(isinstance(n, str) and isinstance(t, Tensor) for n, t in found.items())
    )


def convert_state_dict(
    tensors: Mapping[str, Tensor],
    *,
    rename: Mapping[str, str] | None = None,
    ignore: Iterable[str] = (),
) -> dict[str, Tensor]:
    """Tensors under the authors' names as tensors under the names of :class:`DiffMICNetwork`.

    ====================== ======================================= =============
    authors' name          ours                                    shape, theirs
    ====================== ======================================= =============
    ``norm.*``             ``context.image_norm.*``                (F,)
    ``norm_l.*``           ``context.region_norm.*``               (F,)
    ``cond_weight``        ``context.fusion_logits``               (1, F, K + 1)
    ``linN.lin.weight``    ``denoiser.layers.{N-1}.linear.weight`` (F, in, 1, 1)
    ``linN.lin.bias``      ``denoiser.layers.{N-1}.linear.bias``   (F,)
    ``linN.embed.weight``  ``denoiser.layers.{N-1}.gain``          (T + 1, F)
    ``unetnormN.*``        ``denoiser.norms.{N-1}.*``              (F,)
    ``lin4.weight``        ``denoiser.out.weight``                 (C, F, 1, 1)
    ``lin4.bias``          ``denoiser.out.bias``                   (C,)
    ====================== ======================================= =============

    for N = 1, 2, 3, below any common prefix, such as ``model.``; the last row of ``embed`` is never
    used. Encoders and prior have no names of their own here: they are those of a backbone library,
    so ``rename`` says what they are.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Tensors as :func:`read_checkpoint` gives them.
    rename : mapping of str to str or None
        Beginnings of other names, and what stands there in our names; the longest one counts. For
        example ``{"proj.": "context.image_projection."}``.
    ignore : iterable of str
        Beginnings of names to leave out.

    Returns
    -------
    dict of str to Tensor
        float32 tensors (counters: int64) of context and denoiser, and those that are renamed.

    Raises
    ------
    ModelFileError
        Names are unknown, missing or given twice, shapes do not fit together, or values are not
        finite; the message lists them.
    """
    rename, ignore = dict(rename or {}), tuple(ignore)
    tensors = {n: t for n, t in tensors.items() if not (ignore and n.startswith(ignore))}
    prefix = _prefix(tensors)
    known = _names()
    found: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        ours, ready = _ours(name, tensor, name.removeprefix(prefix), known, rename)
        if ours is None:
            unknown.append(name)
            continue
        if ours in found:
            raise ModelFileError(f"The checkpoint gives {ours!r} twice, also as {name!r}.")
        found[ours] = ready
    counters = {ours for ours in known.values() if ours.endswith(".num_batches_tracked")}
    missing = [
        prefix + theirs
        for theirs, ours in known.items()
        if ours not in found and ours not in counters  # nothing depends on a counter
    ]
    for name in counters - found.keys():
        found[name] = torch.tensor(0)
    if unknown or missing:
        raise ModelFileError(
            f"The checkpoint is not one of DiffMIC-v2's denoiser: {_listed('unknown', unknown)}; "
            f"{_listed('missing', missing)}. Say what other names are with "
            "rename={'theirs.': 'ours.'}, or leave them out with ignore=['theirs.']."
        )
    if unfit := list(_unfit(found)):
        raise ModelFileError(
            f"Tensors of the checkpoint do not fit together: {'; '.join(unfit[:_SHOWN])}."
        )
    return found


def sizes_of(tensors: Mapping[str, Tensor]) -> Sizes:
    """Sizes of the network to which converted tensors belong."""
    n_timesteps, feature_dim = tensors["denoiser.layers.0.gain"].shape
    return Sizes(
        tensors["denoiser.out.weight"].shape[0],
        feature_dim,
        tensors["context.fusion_logits"].shape[1] - 1,
        n_timesteps,
    )


@torch.no_grad()
def load_converted(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load converted tensors into a network, all of whose tensors must be there."""
    own = network.state_dict()
    unknown = [name for name in tensors if name not in own]
    missing = [name for name in own if name not in tensors and not name.endswith(_FIXED)]
    ready = {name: _without_ones(t, own[name].shape) for name, t in tensors.items() if name in own}
    unfit = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in ready.items()
        if tensor.shape != own[name].shape
    ]
    if unknown or missing or unfit:
        raise ModelFileError(
            "The converted tensors are not those of the network: "
            f"{_listed('unknown', unknown)}; {_listed('missing', missing)}; "
            f"{_listed('of another shape', unfit)}. Give the backbones and sizes of the "
            "checkpoint, and the names of its encoders and prior with rename={'theirs.': 'ours.'}."
        )
    network.load_state_dict(ready, strict=False)


# Constants of the preprocessing and counters, which a checkpoint need not have.
_FIXED = (
    ".num_batches_tracked",
    *("backbone.mean", "backbone.std", "image_encoder.mean", "image_encoder.std"),
)


def _names() -> dict[str, str]:
    """Names of the authors, and ours."""
    names = {"cond_weight": "context.fusion_logits"}
    norms = {"norm": "context.image_norm", "norm_l": "context.region_norm"}
    for number in (1, 2, 3):
        layer = f"denoiser.layers.{number - 1}"
        names[f"lin{number}.lin.weight"] = f"{layer}.linear.weight"
        names[f"lin{number}.lin.bias"] = f"{layer}.linear.bias"
        names[f"lin{number}.embed.weight"] = f"{layer}.gain"
        norms[f"unetnorm{number}"] = f"denoiser.norms.{number - 1}"
    names |= {f"lin4.{each}": f"denoiser.out.{each}" for each in ("weight", "bias")}
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    for theirs, ours in norms.items():
        names |= {f"{theirs}.{each}": f"{ours}.{each}" for each in statistics}
    return names


def _prefix(tensors: Iterable[str]) -> str:
    """What stands before the names of the denoiser, such as ``model.``."""
    ends = "lin4.weight"
    found = [n.removesuffix(ends) for n in tensors if n == ends or n.endswith(f".{ends}")]
    if len(found) > 1:
        raise ModelFileError(
            f"The checkpoint has several denoisers, below {found[:_SHOWN]}. Leave out all but one "
            "with ignore=[…]."
        )
    return found[0] if found else ""


def _ours(
    name: str, tensor: Tensor, short: str, known: Mapping[str, str], rename: Mapping[str, str]
) -> tuple[str | None, Tensor]:
    """Our name of a tensor, None if it is unknown, and the tensor as we have it."""
    begins = max((each for each in rename if name.startswith(each)), key=len, default=None)
    if begins is not None:
        return rename[begins] + name.removeprefix(begins), _plain(name, tensor)
    if short not in known:
        return None, tensor
    tensor = _plain(name, tensor)
    if short.endswith(".embed.weight"):
        return known[short], tensor[:-1].clone()
    if short == "cond_weight" and tensor.ndim == 3 and len(tensor) == 1:
        tensor = tensor[0]
    return known[short], _without_ones(tensor, tensor.shape[:2])


def _plain(name: str, tensor: Tensor) -> Tensor:
    """Tensor on the CPU, in float32 if it has floats, and contiguous."""
    tensor = tensor.detach().cpu()
    if tensor.is_complex() or tensor.is_quantized or tensor.is_sparse:
        raise ModelFileError(f"{name!r} is a {tensor.dtype} that a network cannot use.")
    if tensor.is_floating_point():
        if not tensor.isfinite().all():
            raise ModelFileError(f"{name!r} holds NaN or infinity, so a model cannot predict.")
        tensor = tensor.float()
    return tensor.contiguous()


def _without_ones(tensor: Tensor, shape: Iterable[int]) -> Tensor:
    """Tensor without the trailing axes of length 1 that ``shape`` does not have."""
    shape = tuple(shape)
    ones = (1,) * (tensor.ndim - len(shape))
    return tensor.reshape(shape) if ones and tuple(tensor.shape) == shape + ones else tensor


def _unfit(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Which tensors of context and denoiser do not fit to the others, in words."""
    gain, out = tensors["denoiser.layers.0.gain"], tensors["denoiser.out.weight"]
    fusion = tensors["context.fusion_logits"]
    for name, tensor in (("embed.weight", gain), ("lin4.weight", out), ("cond_weight", fusion)):
        if tensor.ndim != 2 or 0 in tensor.shape or (tensor is fusion and tensor.shape[1] < 2):
            yield f"{name} cannot be {tuple(tensor.shape)}"
            return
    n_classes, width, _, n_timesteps = sizes_of(tensors)
    wanted: dict[str, tuple[int, ...]] = {
        "denoiser.out.weight": (n_classes, width),
        "denoiser.out.bias": (n_classes,),
        "context.fusion_logits": (width, fusion.shape[1]),
    }
    for number, entering in enumerate((2 * n_classes, width, width)):
        layer = f"denoiser.layers.{number}"
        wanted[f"{layer}.linear.weight"] = (width, entering)
        wanted[f"{layer}.linear.bias"] = (width,)
        wanted[f"{layer}.gain"] = (n_timesteps, width)
    theirs = {ours: name for name, ours in _names().items()}
    for ours, name in theirs.items():
        counter = ours.endswith(".num_batches_tracked")
        shape = wanted.get(ours, () if counter else (width,))
        tensor = tensors[ours]
        if tuple(tensor.shape) != shape:
            yield f"{name} becomes {tuple(tensor.shape)} instead of {shape}"
        elif not counter and not tensor.is_floating_point():
            yield f"{name} holds {tensor.dtype}, not floats"


def _listed(what: str, names: list[str]) -> str:
    """Names in an error: the first few, and how many there are."""
    if not names:
        return f"no {what} names"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {what}: {', '.join(map(repr, names[:_SHOWN]))}{more}"


def merged(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of several files together, of which no two may have the same name."""
    found: dict[str, Tensor] = {}
    for part in parts:
        if twice := sorted(found.keys() & part.keys()):
            raise InputError(f"Two of the files hold {twice[:_SHOWN]}. Give one of them.")
        found |= part
    return found
