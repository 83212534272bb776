"""Items and batches of data sets: what in them is the image, and what the target."""

import dataclasses
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..errors import InputError

IMAGE_KEYS = ("image", "images", "img", "imgs", "pixel_values")
LABEL_KEYS = ("label", "labels", "lab", "target", "targets", "class")


@dataclasses.dataclass(frozen=True)
class Keys:
    """Keys of images and targets in items or batches that are dicts; None: a known name."""

    image: str | None = None
    label: str | None = None


USUAL_KEYS = Keys()


def as_mapping(item: Any, keys: Keys = USUAL_KEYS) -> Mapping[Any, Any] | None:
    """Values of an item by name: of a dict, a dataclass, or a named tuple with known names."""
    if isinstance(item, Mapping):
        return item
    is_record = dataclasses.is_dataclass(item) and not isinstance(item, type)
    if is_record and not hasattr(item, "__getitem__"):  # a Dataset may be a dataclass
        return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    names = getattr(item, "_fields", None)
    if isinstance(item, tuple) and names is not None:
        known = (keys.image,) if keys.image is not None else IMAGE_KEYS
        return dict(zip(names, item, strict=True)) if set(known) & set(names) else None
    return None


def split_item(
    item: Any,
    keys: Keys = USUAL_KEYS,
    *,
    with_target: bool = False,
    optional: bool = False,
    name: str = "An item",
) -> tuple[Any, Any]:
    """Image and target of an item, or images and targets of a batch.

    Parameters
    ----------
    item : image, (image, target, ...), dict, dataclass or named tuple
    keys : Keys
    with_target, optional : bool
        Whether the target is needed, else it is None; whether it may be missing, and is None then.
    name : str
        Name of the item in error messages.
    """
    if is_file(item):
        image, target, found = item, None, "an image"
    elif (values := as_mapping(item, keys)) is not None:
        found = f"the keys {sorted(map(str, values))}"
        image = values[_image_key(values, keys, name)]
        key = _label_key(values, image, keys, name) if with_target else None
        target = None if key is None else values[key]
    elif isinstance(item, (tuple, list)) and len(item) > 0:
        image, target, found = item[0], item[1] if len(item) > 1 else None, f"{len(item)} entries"
        if isinstance(item, list) and isinstance(target, Mapping) and isinstance(image, Mapping):
            raise InputError(
                f"{name} is a list of {len(item)} dicts, as transforms give that cut several "
                "samples out of one image; one image per item is needed."
            )
        if not is_file(image) and as_mapping(image, keys) is not None:
            image, _ = split_item(image, keys, name=name)
        if with_target and not is_file(target) and as_mapping(target, keys) is not None:
            target = _inner_target(target, keys, name)
    else:
        image, target, found = item, None, "an image"
    if _holds_pairs(image):
        raise InputError(
            f"{name} has {found}, and its images come as pairs (image, label). Let collate_fn give "
            "{'image': [...], 'label': [...]}, or the list of pairs as it is."
        )
    if with_target and target is None and not optional and isinstance(item, (tuple, list)):
        found += ", whose second is None or has no label" if len(item) > 1 else ""
    if with_target and target is None and not optional:
        raise InputError(
            f"{name} has no target, but {found}; fit needs (image, target) pairs, dicts with "
            "'image' and 'label' (other keys: image_key, label_key), or y."
        )
    return (_opened(image) if is_file(image) else image), target


def is_single(value: Any) -> bool:
    """Whether a value is a single image by its type and shape; of text that cannot be said."""
    if isinstance(value, (np.ndarray, Tensor)):
        return value.ndim in (2, 3)
    return isinstance(value, (Path, Image.Image))


def _holds_pairs(value: Any) -> bool:
    """Whether the images of a batch are items that hold more than the image."""
    first = value[0] if isinstance(value, (list, tuple)) and value else None
    return isinstance(first, (list, tuple)) and len(first) > 1 and is_single(first[0])


def is_file(value: Any) -> bool:
    """Whether a value is an image file as Hugging Face stores it: a dict of bytes and path."""
    return isinstance(value, Mapping) and len(value) > 0 and set(value) <= {"bytes", "path"}


def _opened(file: Mapping[str, Any]) -> Any:
    content = file.get("bytes")
    return file.get("path") if content is None else BytesIO(content)


def _image_key(values: Mapping[Any, Any], keys: Keys, name: str) -> Any:
    key = _known_key(values, "image", keys.image, name)
    if key is None and _is_xy(values):
        return "x"
    if key is None:
        parts = " If X is a dict of data sets, pass one of them." if "train" in values else ""
        raise InputError(
            f"{name} is a dict with the keys {sorted(map(str, values))}; none of them is one of "
            f"{IMAGE_KEYS}. Say which holds the image: DiffMICClassifier(image_key=...).{parts}"
        )
    return key


def _label_key(values: Mapping[Any, Any], image: Any, keys: Keys, name: str) -> Any:
    """Key of the target; None: no key is known as one."""
    key = _known_key(values, "label", keys.label, name)
    if key is None and _is_xy(values) and image is values["x"] and "y" in values:
        return "y"
    return key


def _known_key(values: Mapping[Any, Any], part: str, given: str | None, name: str) -> Any:
    """Key of the image or label: that which was given, else the one with a known name, or None."""
    if given is not None:
        if given in values:
            return given
        raise InputError(
            f"{name} has the keys {sorted(map(str, values))}, but not the {part}_key {given!r}."
        )
    known = IMAGE_KEYS if part == "image" else LABEL_KEYS
    named = [key for key in values if isinstance(key, str) and key.lower() in known]
    found = [key for key in named if values[key] is not None]
    if len(found) > 1:
        what = "image" if part == "image" else "target"
        raise InputError(
            f"{name} is a dict of which several keys may hold the {what}: {found}. Say which: "
            f"DiffMICClassifier({part}_key=...)."
        )
    return found[0] if found else None


def _inner_target(values: Any, keys: Keys, name: str) -> Any:
    """Target of an (image, dict) pair, as data sets of torchvision give them."""
    values = as_mapping(values, keys)
    key = _label_key(values, None, keys, f"The target of {name[:1].lower() + name[1:]}")
    return None if key is None else values[key]


def _is_xy(values: Mapping[Any, Any]) -> bool:
    """Whether x may be an image with target y; as two numbers they are a position."""
    return "x" in values and isinstance(values["x"], (np.ndarray, Tensor)) and values["x"].ndim > 1
