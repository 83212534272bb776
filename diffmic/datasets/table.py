"""What readers of data sets on disk share: paths that users give, and names of splits."""

import os
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
