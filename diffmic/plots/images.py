"""Figures of images, with their predictions and regions."""

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.images import as_image, extremes, in_range, unscaled
from ..data.items import as_mapping, split_item
from ..data.ranges import ValueRange
from ..data.reading import Reading
from ..errors import InputError
from ..inference import Explanation
from .style import DIFFUSION_COLOUR, PRIOR_COLOUR, bare, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 512  # pixels of the shorter side, which a figure needs


def plot_regions(
    image: Any,
    explanation: Explanation,
    index: int = 0,
    *,
    saliency: bool | int = True,
    ax: "Axes | None" = None,
) -> "Axes":
    """Plot an image with its saliency and regions; thicker frames mark more attention.

    Parameters
    ----------
    image : array, tensor, PIL image or path
        Image as it was passed to ``explain``, or the item of a Dataset.
    explanation : Explanation
        Result of ``explain``.
    index : int
        Index of the image in the explanation.
    saliency : bool or int
        Saliency under the regions: the evidence for one class against the mean of all, where it is
        above that of the whole image. True: of the most probable class by the prior; an integer: of
        the class with this index; False: none.
    ax : Axes or None
        Axes to draw on; None: those of a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        The explanation has no such image or class.
    DiffMICError
        matplotlib is not installed.
    """
    n_images, n_classes = explanation.global_proba.shape
    flag = isinstance(saliency, bool | np.bool_)  # not the indices 0 and 1, which equal them
    _check_index("index", index, n_images)
    _check_index("saliency", 0 if flag else saliency, n_classes)
    ax = ax or pyplot().subplots(figsize=(3, 3))[1]
    _show(ax, image)
    if saliency or not flag:
        proba = (explanation.global_proba + explanation.local_proba)[index]
        chosen = proba.argmax() if flag else saliency
        _overlay(ax, explanation.evidence(index)[int(chosen)], explanation.frames[index])
    attention = explanation.attention[index]
    strengths = attention / attention.max()
    for (x0, y0, x1, y1), strength in zip(explanation.boxes[index], strengths, strict=True):
        ax.add_patch(
            pyplot().Rectangle(
                (x0 - 0.5, y0 - 0.5),
                x1 - x0,
                y1 - y0,
                fill=False,
                edgecolor="#ffb000",
                linewidth=0.5 + 2 * strength,
                alpha=float(0.4 + 0.6 * strength),
            )
        )
    ax.set_axis_off()
    return ax


def _check_index(name: str, index: int, n: int) -> None:
    if not (isinstance(index, Integral) and -n <= index < n):
        raise InputError(f"{name} is {index!r}; the explanation has 0 to {n - 1}.")


def plot_predictions(
    images: Sequence[Any] | NDArray[Any],
    prior_proba: ArrayLike,
    diffusion_proba: ArrayLike,
    class_names: Sequence[str],
    *,
    truth: ArrayLike | None = None,
    predicted: ArrayLike | None = None,
    explanation: Explanation | None = None,
    columns: int = 4,
) -> "Figure":
    """Plot a grid of images, each above bars of its prior and diffusion probabilities.

    Parameters
    ----------
    images : sequence of n images
        Arrays, tensors, PIL images or paths, or a Dataset.
    prior_proba, diffusion_proba : array-like of shape (n, C)
        Probabilities that ``predict_proba`` gives for each stage.
    class_names : sequence of str
        Display names of the C classes.
    truth : array-like of shape (n,) or (n, C), or None
        True class of each image, as an index or as one of ``class_names``; for multi-label, the
        indicator matrix of the true labels.
    predicted : array-like of shape (n,) or (n, C), or None
        What ``predict`` gives for each image, in the forms of ``truth``. None: titles name the most
        probable class, which thresholds of grades, labels or two classes may decide against.
    explanation : Explanation or None
        Regions to draw on the images.
    columns : int
        Number of images in a row.

    Returns
    -------
    Figure

    Raises
    ------
    DiffMICError
        matplotlib is not installed.
    """
    prior, diffusion = np.asarray(prior_proba), np.asarray(diffusion_proba)
    rows = -(-len(images) // columns)
    figure, axes = pyplot().subplots(
        2 * rows,
        columns,
        figsize=(2.7 * columns, 3.4 * rows),
        squeeze=False,
        height_ratios=[2.4, 1] * rows,
        layout="constrained",
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for number, image in enumerate(images):
        picture = axes[2 * (number // columns), number % columns]
        bars = axes[2 * (number // columns) + 1, number % columns]
        of = int(diffusion[number].argmax())
        word, chosen = "most probable", [str(class_names[of])]
        if predicted is not None:
            word, chosen = "predicted", _names(np.asarray(predicted)[number], class_names)
            if len(chosen) == 1:
                of = [*map(str, class_names)].index(chosen[0])
        if explanation is None:
            _show(picture, image)
        else:
            plot_regions(image, explanation, number, saliency=of, ax=picture)
        title, colour = f"{word}: {', '.join(chosen) or 'none'}", "black"
        if truth is not None:
            actual = _names(np.asarray(truth)[number], class_names)
            title = f"{', '.join(actual) or 'none'}\n{title}"
            right = chosen == actual if predicted is not None else chosen[0] in actual
            colour = "black" if right else "#c0392b"
        picture.set_title(title, fontsize=8, color=colour)
        _bars(bars, prior[number], diffusion[number], class_names, legend=number == 0)
    return figure  # type: ignore[no-any-return]


def _overlay(ax: "Axes", evidence: NDArray[Any], frame: NDArray[np.int64]) -> None:
    """Draw evidence (h, w) above its mean, the more the more opaque, over a part of an image."""
    above = (evidence - evidence.mean()).clip(0)
    x0, y0, x1, y1 = frame.tolist()
    limits = ax.axis()  # of the whole image
    ax.imshow(
        above,
        cmap="autumn_r",
        alpha=0.6 * above / max(above.max(), np.finfo(above.dtype).tiny),
        interpolation="bilinear",
        extent=(x0 - 0.5, x1 - 0.5, y1 - 0.5, y0 - 0.5),
    )
    ax.axis(limits)


def _names(truth: Any, class_names: Sequence[str]) -> list[str]:
    """Names of the true labels of an image."""
    if np.ndim(truth) == 1 and len(truth) > 1:
        return [str(n) for n, present in zip(class_names, truth, strict=True) if present]
    label = np.ravel(truth)[0]
    return [str(label) if isinstance(label, str) else str(class_names[int(label)])]


def _bars(
    ax: "Axes",
    prior: NDArray[Any],
    diffusion: NDArray[Any],
    names: Sequence[str],
    *,
    legend: bool,
) -> None:
    ax.set_axis_on()
    position = np.arange(len(names))
    ax.barh(position - 0.2, prior, 0.38, color=PRIOR_COLOUR, label="prior")
    ax.barh(position + 0.2, diffusion, 0.38, color=DIFFUSION_COLOUR, label="diffusion")
    ax.set_yticks(position, names, fontsize=7)
    ax.set_xticks([0, 0.5, 1], ["0", "½", "1"], fontsize=7)
    ax.set_xlim(0, 1)
    ax.invert_yaxis()
    bare(ax)
    if legend:
        ax.legend(fontsize=6, loc="lower right", frameon=False)


def _show(ax: "Axes", image: Any) -> None:
    """Show an image; positions are its own pixels, also if it is large and shown reduced."""
    if isinstance(image, tuple) or as_mapping(image) is not None:
        image, _ = split_item(image)
    pixels, (height, width) = shown_pixels(image)
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=(-0.5, width - 0.5, height - 0.5, -0.5))


def shown_pixels(image: Any, side: int = _SHOWN) -> tuple[NDArray[Any], tuple[int, int]]:
    """Pixels of an image to look at, (H, W) or (H, W, 3), in 0–1; and its height and width.

    Integers of more than 8 bits and values in other units are stretched to their own range. A
    shorter side of more than twice ``side`` is reduced.
    """
    reading = Reading(raw=True, side=side)
    try:
        pixels = as_image(image, reading=reading)
        low, high = reading.extremes or ((0.0,), (1.0 if pixels.is_floating_point() else 255.0,))
    except InputError:
        any_range = Reading(ValueRange(0, 1, given=True))  # so that all values are taken
        pixels, name = unscaled(image, "image", any_range)
        low, high = extremes(pixels[None]) if pixels.numel() else ((0.0,), (0.0,))
        if not low[0] < high[0]:
            raise
        own = ValueRange(float(low[0]), float(high[0]), given=True)
        pixels = in_range(pixels[None], Reading(own), name=name)[0]
        low, high = (0.0,), (1.0,)
    size = reading.size_of(pixels)
    step = max(1, min(pixels.shape[1:]) // (2 * side))  # a figure has far fewer pixels
    shown = pixels[:, ::step, ::step].permute(1, 2, 0).numpy()
    scaled = (shown - float(low[0])) / max(float(high[0]) - float(low[0]), 1e-9)
    return (scaled[..., 0] if scaled.shape[2] == 1 else scaled), size
