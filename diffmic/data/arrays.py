"""Images given as arrays and tensors of any kind, as plain tensors."""

import os
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .reading import Reading

CHANNELS = (1, 3)


def array_image(value: Any, name: str, reading: Reading) -> Tensor:
    """Pixels (C, H, W) of one image, whose range of values has not been checked."""
    if not isinstance(value, (np.ndarray, Tensor)):
        if not hasattr(value, "__array__") or np.isscalar(value):
            raise InputError(
                f"The {name} is a {type(value).__name__}; give an array, a tensor, a PIL image or "
                f"a path.{_hint(value)}"
            )
        value = np.asarray(value)
    image = as_tensor(value, any_type=reading.value_range is not None, name=name)
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3:
        raise InputError(
            f"The {name} has shape {tuple(image.shape)}; (C, H, W), (H, W, C) or (H, W) is needed."
            + (" Of a volume or a stack, pass each slice as an image." if image.ndim > 3 else "")
        )
    return channels_first(image[None], name=name)[0]


def _hint(value: Any) -> str:
    """What a value may be that is no image."""
    if value is None or (isinstance(value, float) and np.isnan(value)) or str(value) == "<NA>":
        return " It is missing: leave it out, with its label."
    if isinstance(value, (int, np.integer)):
        return " X may hold labels: fit(X, y) takes the images first."
    return " Nested lists: numpy.asarray(image)." if isinstance(value, list) else ""


def as_tensor(
    values: "np.ndarray | Tensor", *, any_type: bool = False, name: str | None = None
) -> Tensor:
    """Pixels as a plain tensor on the CPU: uint8, float32, or integers of more than 8 bits.

    Of a tensor's subclass the plain values are taken. ``any_type``: integers of any type are taken,
    because their range is known; else uint8 and uint16. ``name``: that of a single image.

    Raises
    ------
    InputError
        Another type, whose range is not known; or masked, missing or complex values.
    """
    if isinstance(values, Tensor):
        tensor = _plain(values, name)
    elif np.ma.is_masked(values):
        raise InputError(
            f"{subject(name)} masked pixels; give them a value: X.filled(0) for black."
        )
    elif values.dtype.kind in "iuf":
        tensor = _from_numpy(values)
    else:
        raise InputError(_unknown_type(values.dtype, name))
    if tensor.is_floating_point():
        return tensor.float()
    whole = any_type and not tensor.is_complex() and tensor.dtype != torch.bool
    if whole or tensor.dtype in (torch.uint8, torch.uint16):
        return tensor
    raise InputError(_unknown_type(values.dtype, name))


def subject(name: str | None) -> str:
    """Beginning of a sentence about one image, or about all."""
    return "Images have" if name is None else f"The {name} has"


def _unknown_type(dtype: Any, name: str | None) -> str:
    dtype = getattr(dtype, "newbyteorder", lambda order: dtype)("=")
    found = f"{subject(name)} the type {dtype}, whose range is not known. "
    kind = str(dtype).removeprefix("torch.")
    if kind == "bool":
        return found + "Scale it to uint8 (0–255): X.astype('uint8') * 255, or to float (0–1)."
    if kind.startswith(("int", "uint")):
        return found + (
            "Scale them to uint8 (0–255) or to float (0–1), or fit with "
            "DiffMICClassifier(value_range=(low, high)), the values of black and white, such as "
            "value_range=(-1000, 400) for CT in Hounsfield units. For unsigned images of 16 bits: "
            "X.astype('uint16')."
        )
    return found + (
        "Give numbers, as uint8 (0–255) or float (0–1); a list for images of several sizes."
    )


def _plain(tensor: Tensor, name: str | None) -> Tensor:
    """Values of a tensor of any layout, device and subclass, without its gradient."""
    if tensor.device.type == "meta":
        which = "Images are tensors" if name is None else f"The {name} is a tensor"
        raise InputError(f"{which} on the device 'meta', without values.")
    if getattr(tensor, "is_nested", False):
        raise InputError("Images are a nested tensor; give a list of tensors: X.unbind().")
    with torch.no_grad():
        tensor = tensor.detach()
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        return tensor.as_subclass(Tensor).cpu().resolve_conj().resolve_neg()


def _from_numpy(values: "np.ndarray") -> Tensor:
    kind = values.dtype.kind
    dtype = np.dtype(np.float32) if kind == "f" else values.dtype.newbyteorder("=")
    if dtype in (np.uint32, np.uint64):
        dtype = np.dtype(np.int64)
    values = np.ascontiguousarray(np.asarray(values), dtype=dtype)
    if min(values.strides, default=0) < 0:  # along an axis of length 1, which NumPy passes over
        values = values.copy()
    with warnings.catch_warnings():
        # Images are only read, so a read-only array (such as a memory map) needs no copy.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def channels_first(images: Tensor, *, name: str | None = None) -> Tensor:
    """(n, C, H, W) or (n, H, W, C) → (n, C, H, W), with 1 or 3 channels."""
    if images.shape[1] in CHANNELS:
        return images
    if images.shape[3] in CHANNELS:
        return images.permute(0, 3, 1, 2)
    raise InputError(
        f"{subject(name)} shape {tuple(images.shape[1:])}; 1 (gray) or 3 (RGB) channels are "
        "needed, first or last. Choose or combine channels; of a volume, pass each slice."
    )


def entries_of(X: Any) -> list[Any]:
    """Entries of an array of paths or objects, (n,) or a column (n, 1); bytes are paths."""
    if X.ndim == 2 and X.shape[1] == 1:
        X = X[:, 0]
    if X.ndim > 1 and X.dtype.kind != "O":
        raise InputError(
            f"X is a table of {X.shape[0]} × {X.shape[1]} texts; give the column of image paths."
        )
    if X.ndim > 1 and isinstance(X.flat[0], (int, float, np.number)):
        raise InputError(
            f"X is an array of shape {X.shape} and type object, whose range is not known. Convert "
            "it: X.astype('uint8') for 0–255, or X.astype('float32') for 0–1."
        )
    return [os.fsdecode(x) for x in X] if X.dtype.kind == "S" else list(np.atleast_1d(X))


def as_batch(
    X: "np.ndarray | Tensor", *, known_channels: int | None = None, any_type: bool = False
) -> Tensor:
    """An array of images → Tensor (n, C, H, W), whose range of values has not been checked.

    ``known_channels``: see :class:`~diffmic.data.inputs.How`; ``any_type``: :func:`as_tensor`.
    """
    if X.ndim < 2:
        raise InputError(f"{_wrong_shape(X)}; labels are passed as y.")
    images = as_tensor(X, any_type=any_type)
    if known_channels is None:
        images = images[:, None] if images.ndim == 3 else images
    elif images.ndim == 2:
        images = images[None, None]
    elif images.ndim == 3:
        single = images.shape[2] in CHANNELS or known_channels == 3
        if single and not {images.shape[0], images.shape[2]} & set(CHANNELS):
            raise InputError(
                f"X has shape {tuple(images.shape)}, which is no colour image, but the model was "
                "fitted on colour images. For gray images of shape (n, H, W) pass X[:, None]."
            )
        images = images[None] if single else images[:, None]
    if images.ndim != 4:
        raise InputError(f"{_wrong_shape(images)}; of a volume, pass slices.")
    if len(images) == 0:
        raise InputError("X holds no images: Found array with 0 sample(s), at least 1 is required.")
    return channels_first(images)


def _wrong_shape(images: "np.ndarray | Tensor") -> str:
    return (
        f"Expected images of shape (n, C, H, W), (n, H, W, C) or (n, H, W), found array with dim "
        f"{images.ndim}: shape {tuple(images.shape)}. Reshape your data so that each sample is an "
        "image"
    )
