"""What readers of data sets on disk share: paths that users give, and names in messages."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError

SPLIT_NAMES = {
    *("train", "training", "val", "valid", "validation", "dev"),
    *("test", "testing", "eval", "evaluation"),
}


def as_path(value: Any, name: str) -> Path:
    """A path that the user gave, with ``~`` expanded.

    Raises
    ------
    InputError
        It is no path, or names a home folder that does not exist.
    """
    try:
        text = os.fspath(value)
        if not isinstance(text, str) or not text:
            raise TypeError
        return Path(text).expanduser()
    except (TypeError, RuntimeError) as reason:
        why = f" ({reason})" if isinstance(reason, RuntimeError) else ""
        raise InputError(f"{name} is {value!r}; give the path of it{why}.") from reason


def some(names: Sequence[Any], limit: int = 3) -> str:
    """The first names, and that there are more."""
    shown = ", ".join(str(name) for name in names[:limit])
    return shown + (", …" if len(names) > limit else "")
