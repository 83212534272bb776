"""Copies of images: by their pixels, and by what they look like."""

import hashlib
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import avg_pool2d

Hashes = NDArray[np.uint64]  # (..., 8, 4): 256 bits of each of the 8 orientations
Pairs = NDArray[np.intp]  # (m, 2)

_SIDE = 16  # bits along a side of a hash
_BLOCK = 2**20  # hashes that are compared at once
_MOST_PAIRS = 2**20  # pairs that are kept before they are merged into sets
_LARGEST_SIDE = 1024  # of the shorter side; larger images are averaged over blocks first
_ROWS = 256  # of a large image that are looked at together
_TURNS = tuple(Image.Transpose)


def can_look_alike() -> bool:
    """Whether ImageHash, which near duplicates need, is installed."""
    return find_spec("imagehash") is not None


def fingerprint(image: Tensor) -> bytes:
    """Checksum of the pixels of an image: the same for equal pixels, however they were stored.

    Gray in three channels is gray; floats that are fractions of 255 or 65535 are these integers;
    integers of any type are compared by value, and 8 bits that were spread over 16 are 8 bits.
    """
    if len(image) == 3 and bool((image == image[:1]).all()):
        image = image[:1]
    pixels = image
    if image.dtype != torch.uint8:
        pixels = image.double() if image.is_floating_point() else image.long()
    for white, tolerance in ((255, 0.1), (65535, 0.02)):  # what rounding to half precision costs
        if pixels.is_floating_point():
            scaled = pixels * white
            if bool(((scaled - scaled.round()).abs() < tolerance).all()):
                pixels = scaled.round().long()
    whole = not pixels.is_floating_point()
    if whole and int(pixels.max()) > 255 and not bool((pixels % 257).any()):
        pixels = pixels // 257
    dtype = pixels.dtype if pixels.is_floating_point() else torch.int64
    found = hashlib.blake2b(f"{tuple(pixels.shape)} {dtype}".encode(), digest_size=16)
    for channel in pixels:
        for rows in torch.split(channel, _ROWS):
            found.update(rows.to(dtype).contiguous().numpy().data)
    return found.digest()


def perceptual_hashes(image: Tensor) -> Hashes:
    """Perceptual hashes of an image (C, H, W) and of its turned and mirrored versions, (8, 4).

    A hash has a bit for each of the 16 × 16 lowest frequencies of the image reduced to 64 × 64
    pixels: whether it is above the median (``imagehash.phash``).
    """
    import imagehash

    factor = min(image.shape[1:]) // _LARGEST_SIDE
    if factor > 1:  # averaged, some rows at a time
        parts = torch.split(image, factor * max(1, _ROWS // factor), dim=1)
        shrunk = [avg_pool2d(p.float(), factor, ceil_mode=True) for p in parts]
        image = torch.cat(shrunk, dim=1)
    pixels = image.float()
    low, high = pixels.aminmax()
    scaled = ((pixels - low) / (high - low).clamp(min=1e-12) * 255).byte().numpy()
    colour = scaled.shape[0] == 3
    whole = Image.fromarray(scaled.transpose(1, 2, 0) if colour else scaled[0]).convert("L")
    # ImageHash reduces to four times the side of the hash; turning a small image is faster.
    small = whole.resize((4 * _SIDE, 4 * _SIDE), Image.Resampling.LANCZOS)
    versions = [small, *(small.transpose(turn) for turn in _TURNS)]
    bits = [imagehash.phash(version, hash_size=_SIDE).hash.ravel() for version in versions]
    return np.packbits(np.stack(bits), axis=1).view(np.uint64)


def equal_sets(prints: Sequence[Any]) -> list[tuple[int, ...]]:
    """Sets of two or more positions with the same entry; None is equal to nothing."""
    members: dict[Any, list[int]] = {}
    for position, entry in enumerate(prints):
        if entry is not None:
            members.setdefault(entry, []).append(position)
    return [tuple(found) for found in members.values() if len(found) > 1]


def similar_sets(hashes: Hashes, distance: int) -> list[tuple[int, ...]]:
    """Sets of two or more positions whose hashes differ in at most ``distance`` bits.

    An image belongs to a set if it is close to one of its members in any orientation. Every pair
    is compared, many at once; the memory needed does not grow with the number of pairs.

    Parameters
    ----------
    hashes : ndarray of shape (n, 8, 4), uint64
    distance : int
    """
    # Equal hashes, of which there may be very many, need no comparison.
    _, first, same = np.unique(hashes[:, 0], axis=0, return_index=True, return_inverse=True)
    members = first[same.ravel()]
    total, first = len(hashes), np.sort(first)
    hashes, n = hashes[first], len(first)
    found: list[Pairs] = []
    rows = max(1, _BLOCK // max(n, 1))
    for start in range(0, n, rows):
        upright = hashes[start : start + rows, 0]
        others = hashes[start:]
        for turned in range(hashes.shape[1]):
            found.append(_close(upright, others[:, turned], distance) + start)
        if sum(map(len, found)) > _MOST_PAIRS:
            found = [chained(sets_of(united(n, found)))]
    near = [first[np.concatenate(found)]] if found else []
    return sets_of(united(total, [np.stack([np.arange(total), members], 1), *near]))


def united(n: int, pairs: Iterable["Pairs | Sequence[Sequence[int]]"]) -> NDArray[np.intp]:
    """Number of the set of each of n positions, if the two of a pair are in one set."""
    known = [np.asarray(some, dtype=np.intp).reshape(-1, 2) for some in pairs]
    edges = np.concatenate([np.empty((0, 2), dtype=np.intp), *known])
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), (n, n))
    numbers: NDArray[np.intp] = connected_components(graph, directed=False)[1].astype(np.intp)
    return numbers


def chained(sets: Iterable[Sequence[int]]) -> Pairs:
    """Pairs that unite the members of each set."""
    pairs = [pair for members in sets for pair in pairwise(members)]
    return np.asarray(pairs, dtype=np.intp).reshape(-1, 2)


def sets_of(numbers: NDArray[np.intp]) -> list[tuple[int, ...]]:
    """Sets of two or more positions with the same number, by their first member."""
    return sorted(equal_sets(numbers.tolist()))


def _close(rows: NDArray[np.uint64], columns: NDArray[np.uint64], distance: int) -> Pairs:
    """Pairs (row, column), row < column, of hashes that differ in at most ``distance`` bits."""
    # Most pairs differ in too many of the first 64 bits already.
    few = np.bitwise_count(rows[:, None, 0] ^ columns[None, :, 0]) <= distance
    row, column = np.nonzero(few)
    later = row < column
    row, column = row[later], column[later]
    differing = np.bitwise_count(rows[row] ^ columns[column]).sum(axis=1, dtype=np.int64)
    close = differing <= distance
    return np.stack([row[close], column[close]], axis=1)
