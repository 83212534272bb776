"""Results for people: pandas data frames, Markdown, and what a notebook prints."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np


class Brief:
    """Base of dataclasses of many values: printed, they tell the shapes of their arrays."""

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        told = [
            f"{name} {value.shape if isinstance(value, np.ndarray) else repr(value)}"
            for name, value in values.items()
        ]
        return f"<{type(self).__name__}: {', '.join(told)}>"


def data_frame(rows: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> Any:
    """Rows, or columns, as a pandas data frame; ImportError where it is not installed."""
    try:
        import pandas
    except ImportError as reason:
        raise ImportError(
            "to_frame needs pandas, which is not installed: pip install pandas. The same values "
            "are attributes of the result, as numpy arrays and numbers."
        ) from reason
    return pandas.DataFrame(rows)


def markdown_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Table in Markdown; bars and line breaks in cells would end them and are replaced."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")
