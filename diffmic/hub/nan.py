"""NaN in the values of a configuration, which JSON does not know."""

import math
from collections.abc import Callable
from typing import Any


def nan_as_none(value: Any) -> Any:
    """Values with NaN as None: metrics may be NaN, which JSON cannot represent."""
    return _replaced(value, lambda leaf: isinstance(leaf, float) and math.isnan(leaf), None)


def none_as_nan(value: Any) -> Any:
    """Values with NaN for None."""
    return _replaced(value, lambda leaf: leaf is None, math.nan)


def _replaced(value: Any, wanted: Callable[[Any], bool], by: Any) -> Any:
    if isinstance(value, dict):
        return {name: _replaced(entry, wanted, by) for name, entry in value.items()}
    if isinstance(value, list):
        return [_replaced(entry, wanted, by) for entry in value]
    return by if wanted(value) else value
