"""Augmentation of training images and of test-time views, with random numbers that repeat."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, warn_user
from ..generators import seeded
from ..random import LocalRNG, derived_seed, imported
from .ranges import OVERSHOOT

Augment = Callable[[Tensor], Tensor]
AUGMENTS = ("auto", "rotations")
PAPERS_AUGMENTS = ("paper", "paper-fundus", "paper-chest")

_TRIALS = 4  # pairs of calls by which a transform is tried before a fit


@dataclass(frozen=True)
class Named:
    """A named augmentation, all of whose random numbers come from torch."""

    transform: Any

    def __call__(self, image: Tensor) -> Tensor:
        changed: Tensor = self.transform(image)
        return changed


def augmented(image: Tensor, augment: Augment, seed: int) -> Tensor:
    """Augmented image (3, S, S), which depends on the seed alone.

    The random numbers of ``augment`` may come from torch, numpy or Python, from their global
    generators or from those that it holds; see :func:`diffmic.generators.seeded`. An InputError
    says that it returns another shape, or floats outside 0–1.
    """
    with LocalRNG(seed) if isinstance(augment, Named) else seeded(augment, seed):
        # A copy, because a transform may work in place and must not change the user's pixels.
        changed = augment(image.clone(memory_format=torch.contiguous_format))
    expected = tuple(image.shape)
    if not isinstance(changed, Tensor) or tuple(changed.shape) != expected:
        found = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
        raise InputError(f"augment returned {found}; a tensor of shape {expected} is needed.")
    changed = changed.as_subclass(Tensor)  # not of MONAI's or torchvision's own kind
    if changed.dtype == torch.uint8:
        return changed
    if not changed.is_floating_point():
        raise InputError(
            f"augment returned pixels of type {changed.dtype}; uint8, or floats in 0–1, are needed."
        )
    low, high = changed.aminmax()
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):
        raise InputError(
            f"augment returned pixels from {low:.3g} to {high:.3g}; floats must stay in 0–1. "
            "Leave out Normalize, since the model normalises; scale when converting to float."
        )
    return changed.clamp(0, 1)


def check_augment(augment: Augment | None, image: Tensor, seed: int) -> None:
    """Try an augmentation on an image: an error if it fails, a warning if it does not repeat."""
    if augment is None:
        return
    try:
        augmented(image, augment, seed)
    except InputError:
        raise
    except Exception as reason:  # code of the user may raise anything
        raise InputError(
            f"augment fails on the first image: {type(reason).__name__}: {reason}. It is called "
            f"with one tensor of shape {tuple(image.shape)} and type {image.dtype}, and must "
            "return such a tensor; put a function around a transform that takes something else."
        ) from reason
    if isinstance(augment, Named):
        return
    for trial in range(_TRIALS):
        pair = [augmented(image, augment, derived_seed(seed, trial)) for _ in range(2)]
        if not torch.equal(*pair):
            warn_user(
                "augment does not repeat: with all random generators that it was seen to use in "
                "the same state, it changed one image in two ways. So random_state does not give "
                "the same model again. Let it draw from torch, numpy's or Python's random "
                "functions, or from a generator that it holds as an attribute."
            )
            return


def named_augment(name: str) -> Augment:
    """Named augmentation: mild random transforms that keep most medical images plausible.

    Parameters
    ----------
    name : {"auto", "rotations", "paper", "paper-fundus", "paper-chest"}
        Augmentation. ``"auto"``: shifts, rotations by up to 15°, horizontal flips, brightness and
        contrast.
        ``"rotations"``: the same with rotations by any angle and vertical flips, for images
        without an upright direction, such as those of skin, fundus or cells.
        The others are those of the papers: see :func:`papers_augment`.
    """
    if name in PAPERS_AUGMENTS:
        return papers_augment(name)
    v2 = imported("torchvision.transforms.v2")
    turns = name == "rotations"
    augment = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            *([v2.RandomVerticalFlip()] if turns else []),
            # Half of the images are not resampled: resampling smooths noise and leaves black
            # corners, and a network trained on resampled images alone misjudges original ones.
            v2.RandomApply(
                [
                    v2.RandomAffine(
                        degrees=180 if turns else 15,
                        translate=(0.05, 0.05),
                        scale=(0.9, 1.1),
                        interpolation=v2.InterpolationMode.BILINEAR,
                    )
                ]
            ),
            v2.ColorJitter(brightness=0.15, contrast=0.15),
        ]
    )
    return Named(augment)


def papers_augment(name: str) -> Augment:
    """Augmentation of the papers (Yang et al., 2023 and 2025).

    Their chances of a flip, the scale of the random crop, the interpolation and the order are not
    in our description of them; they are torchvision's defaults, but for bilinear interpolation.

    Parameters
    ----------
    name : {"paper", "paper-fundus", "paper-chest"}
        ``"paper"``: horizontal flips, rotations by up to 30°. ``"paper-fundus"``: vertical flips,
        too. ``"paper-chest"``: random resized crops, horizontal flips, rotations by up to 20°.
    """
    v2 = imported("torchvision.transforms.v2")
    flips = [v2.RandomHorizontalFlip(), *([v2.RandomVerticalFlip()] if "fundus" in name else [])]
    degrees = 20 if "chest" in name else 30
    turn = v2.RandomRotation(degrees, interpolation=v2.InterpolationMode.BILINEAR)
    if "chest" in name:
        return Named(_RandomResizedCrop(v2.Compose([*flips, turn])))
    return Named(v2.Compose([*flips, turn]))


@dataclass(frozen=True)
class _RandomResizedCrop:
    """A random part of an image, resized to the image's own size, before other transforms."""

    after: Any

    def __call__(self, image: Tensor) -> Tensor:
        # The module is no attribute: worker processes get a pickled copy.
        v2 = imported("torchvision.transforms.v2")
        crop = v2.RandomResizedCrop(image.shape[-2:], antialias=True)
        changed: Tensor = self.after(crop(image))
        return changed
