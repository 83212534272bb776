"""What all figures share: how matplotlib is imported, and lines that differ without colour."""

from typing import TYPE_CHECKING, Any

from ..errors import DiffMICError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PRIOR_COLOUR, DIFFUSION_COLOUR = "#9aa5b1", "#1f6fb4"
# Told apart without colour by their dashes and markers, too.
LINES: tuple[dict[str, Any], ...] = (
    {"color": DIFFUSION_COLOUR, "linestyle": "-", "marker": "o"},
    {"color": "#5c6770", "linestyle": "--", "marker": "s"},
    {"color": "#c25e00", "linestyle": ":", "marker": "^"},
)


def pyplot() -> Any:
    """``matplotlib.pyplot``.

    Raises
    ------
    DiffMICError
        matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as reason:
        raise DiffMICError("Pictures need matplotlib: pip install 'diffmic[plots]'.") from reason
    return plt


def axes_of(ax: "Axes | None", size: tuple[float, float]) -> "Axes":
    """The axes, or those of a new figure of a size in inches."""
    if ax is not None:
        return ax
    made: Axes = pyplot().subplots(figsize=size, layout="constrained")[1]
    return made


def bare(ax: "Axes") -> None:
    """Remove the frame but for the axes at the left and below."""
    ax.spines[["top", "right"]].set_visible(False)
