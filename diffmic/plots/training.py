"""Figures of how a model came about: the history of its fit, and a label map as it is denoised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ..diffusion import expand_distances
from ..errors import InputError
from ..inference import Explanation
from .style import LINES, bare, pyplot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLES = {"prior": "stage one: prior", "diffusion": "stage two: diffusion"}


@dataclass(repr=False)
class HistoryDisplay:
    """Training history: loss of training and likelihood of validation in each epoch of a stage.

    Attributes
    ----------
    history : sequence of dict
        Rows of ``history_``.
    """

    history: Sequence[Mapping[str, Any]]

    @classmethod
    def from_estimator(cls, clf: Any) -> Self:
        """Figure of the fit that gave an estimator its model."""
        display = cls(clf.history_)
        display.plot()
        return display

    def plot(self) -> "Figure":
        """Draw a new figure, with axes for each stage.

        Raises
        ------
        InputError
            The history is empty.
        """
        stages = list(dict.fromkeys(row["stage"] for row in self.history))
        if not stages:
            raise InputError("The history is empty: the model was saved without one.")
        figure, axes = pyplot().subplots(
            1, len(stages), figsize=(3.6 * len(stages), 3), squeeze=False, layout="constrained"
        )
        for ax, stage in zip(axes[0], stages, strict=True):
            rows = [row for row in self.history if row["stage"] == stage]
            epochs = [row["epoch"] for row in rows]
            drawn = {"training loss": "train_loss", "validation negative log-likelihood": "val_nll"}
            for (label, name), line in zip(drawn.items(), LINES, strict=False):
                pairs = [
                    (epoch, row.get(name, row.get(name.replace("val_", "validation_"))))
                    for epoch, row in zip(epochs, rows, strict=True)
                ]
                pairs = [pair for pair in pairs if pair[1] is not None]
                if pairs:
                    ax.plot(*zip(*pairs, strict=True), label=label, markersize=3, **line)
            ax.set_title(_TITLES.get(stage, stage), fontsize=10)
            ax.set_xlabel("epoch")
            ax.xaxis.get_major_locator().set_params(integer=True)
            bare(ax)
        axes[0, 0].legend(frameon=False, fontsize=8)
        return figure  # type: ignore[no-any-return]


@dataclass(repr=False)
class DenoisingDisplay:
    """A label map as it is denoised: noisy maps above, estimates of the clean map below.

    Attributes
    ----------
    noisy_maps, clean_maps : ndarray of shape (N, K, C)
        Maps of one image at each step, by distance, as in
        :class:`~diffmic.inference.Explanation`.
    class_name : str
        Name of the class whose values are drawn.
    class_index : int
        Its index.
    """

    noisy_maps: NDArray[np.float32]
    clean_maps: NDArray[np.float32]
    class_name: str
    class_index: int

    @classmethod
    def from_explanation(
        cls,
        explanation: Explanation,
        index: int = 0,
        *,
        class_index: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Self:
        """Figure of one image of an explanation.

        Parameters
        ----------
        explanation : Explanation
        index : int
            Index of the image.
        class_index : int or None
            Class whose values are drawn; None: the one that is most probable in the end.
        class_names : sequence of str or None
            Names of the classes; None: their indices.

        Raises
        ------
        InputError
            The model has no diffusion stage.
        """
        if explanation.noisy_maps is None or explanation.clean_maps is None:
            raise InputError("The explanation has no label maps: no diffusion stage was trained.")
        noisy, clean = explanation.noisy_maps[index], explanation.clean_maps[index]
        chosen = int(clean[-1].mean(axis=0).argmax()) if class_index is None else int(class_index)
        name = str(chosen) if class_names is None else str(class_names[chosen])
        display = cls(noisy, clean, name, chosen)
        display.plot()
        return display

    def plot(self) -> "Figure":
        """Draw a new figure, with a column for each step."""
        n_steps = len(self.noisy_maps)
        figure, axes = pyplot().subplots(
            2, n_steps, figsize=(1.1 * n_steps + 1.2, 2.9), squeeze=False, layout="constrained"
        )
        rows = ((self.noisy_maps, "noisy", (-2, 2)), (self.clean_maps, "estimate", (0, 1)))
        for row, (maps, label, (low, high)) in enumerate(rows):
            full = expand_distances(torch.from_numpy(maps))[..., self.class_index].numpy()
            for step, ax in enumerate(axes[row]):
                shown = ax.imshow(full[step], cmap="gray", vmin=low, vmax=high)
                ax.set_xticks([])
                ax.set_yticks([])
                if row == 0:
                    ax.set_title(f"step {step + 1}", fontsize=8)
            axes[row, 0].set_ylabel(label, fontsize=9)
            figure.colorbar(shown, ax=axes[row])
        figure.suptitle(f"label map, class {self.class_name}", fontsize=10)
        return figure  # type: ignore[no-any-return]
