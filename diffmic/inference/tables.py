"""Results as tables: pandas data frames, and Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any


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
