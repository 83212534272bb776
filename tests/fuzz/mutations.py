"""Mutations of files: of any bytes, of JSON, of safetensors; each follows from a seed alone."""

import copy
import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

LONG = "x" * 100_000
ODD = ("", "\x00", "../../etc/passwd", "hf-hub:org/model", "ß" * 50, "\ud800", LONG, "NaN", "1")
NUMBERS = (0, 1, -1, 2, 0.5, -0.0, 1e-300, 1e300, 10**9, 2**31, 2**63, 2**64, -(10**9), 10**40)
NOT_FINITE = (float("nan"), float("inf"), -float("inf"))
PLAIN = (None, True, False, [], {}, [[]], [None], {"": None}, {"own": "x"}, [0] * 1000)
MARKED = b'\x00\xff\x7f\x80\x01{}[]",:0-9eE+.\\u\n'


def of_bytes(rng: random.Random, content: bytes) -> bytes:
    """Content with one to four changes of bytes anywhere."""
    for _ in range(rng.randint(1, 4)):
        content = rng.choice(_OF_BYTES)(rng, content)
    return content


def _place(rng: random.Random, content: bytes, longest: int = 64) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    # Headers decide more than what follows them.
    if rng.random() < 0.4:
        start = min(start, rng.randrange(128))
    return start, min(len(content), start + rng.randint(1, longest))


def _flipped(rng: random.Random, content: bytes) -> bytes:
    if not content:
        return content
    at = min(_place(rng, content)[0], len(content) - 1)
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def _replaced(rng: random.Random, content: bytes) -> bytes:
    start, end = _place(rng, content, 8)
    new = bytes(rng.choice(MARKED) for _ in range(end - start))
    return (
        content[:start]
        + (rng.randbytes(end - start) if rng.random() < 0.5 else new)
        + content[end:]
    )


def _cut(rng: random.Random, content: bytes) -> bytes:
    start, end = _place(rng, content)
    return content[:start] + content[end:]


def _repeated(rng: random.Random, content: bytes) -> bytes:
    start, end = _place(rng, content)
    return content[:end] + content[start:end] * rng.choice((1, 2, 50)) + content[end:]


def _moved(rng: random.Random, content: bytes) -> bytes:
    (a, b), at = _place(rng, content), rng.randrange(len(content) + 1)
    return content[:at] + content[a:b] + content[at:]


def _ended(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _number(rng: random.Random, content: bytes) -> bytes:
    """A 16- or 32-bit number, as lengths and sizes in headers are, of either byte order."""
    start, _ = _place(rng, content)
    kind = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(kind)
    value = rng.choice((0, 1, 255, 2**16 - 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1)))
    return content[:start] + struct.pack(kind, value % 2 ** (8 * size)) + content[start + size :]


_OF_BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *(_flipped, _flipped, _replaced, _replaced, _cut, _repeated, _moved, _ended, _number),
)


def of_json(rng: random.Random, values: Any) -> bytes:
    """JSON of the values with one to three changes of what it holds."""
    values = copy.deepcopy(values)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(values))
        parent, key = rng.choice(places)
        _change(rng, parent, key, places)
    text = json.dumps(values)
    if rng.random() < 0.05:  # a key that comes twice
        name = rng.choice([*values] or ["x"])
        text = text[:-1] + f", {json.dumps(name)}: {json.dumps(rng.choice(PLAIN))}}}"
    return text.replace('"\\u0000deep"', "[" * 50_000 + "]" * 50_000).encode()


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    keys = values if isinstance(values, dict) else range(len(values))
    for key in list(keys):
        yield values, key
        if isinstance(values[key], (dict, list)):
            yield from _places(values[key])


def _change(rng: random.Random, parent: Any, key: Any, places: list[tuple[Any, Any]]) -> None:
    old, kind = parent[key], rng.randrange(12)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[rng.choice((key + "s", "surplus", *ODD))] = parent.pop(key)
    elif kind == 2 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(old))
    elif kind == 3:
        other, name = rng.choice(places)
        parent[key] = copy.deepcopy(other[name]) if name in _keys(other) else None
    elif kind == 4:
        parent[key] = [copy.deepcopy(old)]
    elif kind == 5:
        parent[key] = str(old)
    elif kind == 6:
        parent[key] = rng.choice(ODD)
    elif kind == 7:
        parent[key] = rng.choice(NOT_FINITE) if rng.random() < 0.5 else "\x00deep"
    elif kind == 8:
        parent[key] = copy.deepcopy(rng.choice(PLAIN))
    elif isinstance(old, (int, float)) and rng.random() < 0.5:
        parent[key] = rng.choice((-old, old + 1, old - 1, old * 10, old / 3, float(old), old == 1))
    else:
        parent[key] = rng.choice(NUMBERS)


def _keys(values: Any) -> Any:
    return values if isinstance(values, dict) else range(len(values))


_SHAPES = ([], [0], [-1], [2**63], [2**40, 2**40], [1] * 1000, "x", None, [0.5])


def _is_sound(entry: Any) -> bool:
    """Whether an entry of a header describes a tensor."""
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(name), list) for name in ("shape", "data_offsets"))
        and len(entry["data_offsets"]) == 2
    )


def of_safetensors(rng: random.Random, content: bytes) -> bytes:
    """A file of safetensors with changes of its header: lengths, offsets, types, shapes, names."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    for _ in range(rng.choice((1, 1, 2))):
        name, other = (rng.choice([*header]) for _ in range(2))
        entry, kind = header[name], rng.randrange(9)
        if not _is_sound(entry):  # the metadata, or what has been changed before
            header[name] = rng.choice((*PLAIN, {"format": LONG}, {"format": 1}))
        elif kind == 0:
            entry["dtype"] = rng.choice(
                ("F64", "F16", "BF16", "I8", "BOOL", "C64", "F8_E4M3", "X", 1)
            )
        elif kind == 1:
            entry["shape"] = rng.choice((*_SHAPES, entry["shape"][::-1]))
        elif kind == 2:
            start, end = entry["data_offsets"]
            other_ends = [end, start], [start + 4, end], [start, end + 4], [-4, end], [start]
            entry["data_offsets"] = rng.choice((*other_ends, [0, 2**63], [0, 0]))
        elif kind == 3:
            entry["data_offsets"] = (
                header[other]["data_offsets"] if _is_sound(header[other]) else []
            )
        elif kind == 4:
            header[name] = copy.deepcopy(header[other])
        elif kind == 5:
            header[rng.choice((*ODD, name + ".x", "doubt.x"))] = header.pop(name)
        elif kind == 6:
            del header[name]
        elif kind == 7:
            header[rng.choice((*ODD[:4], "surplus"))] = {
                "dtype": "F32",
                "shape": [0],
                "data_offsets": [len(data), len(data)],
            }
        else:
            entry[rng.choice([*entry])] = copy.deepcopy(rng.choice(PLAIN))
    text = json.dumps(header).encode()
    length = rng.choice(
        (len(text),) * 12 + (0, len(text) - 1, len(text) + 1, 2**63, 2**64 - 1, 10**8)
    )
    return struct.pack("<Q", length) + text + data
