"""Draw ``method.png``, a schematic with made-up values: ``python docs/method_figure.py``."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, Rectangle

SIDE, K, GLOBAL, LOCAL = 64, 6, 0.45, 0.85  # pixels, regions, opinions of the prior
rng = np.random.default_rng(0)
rows, columns = np.mgrid[:SIDE, :SIDE]


def spot(x, y, radius):
    """A round spot of height 1, with soft edges."""
    return np.exp(-(((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2)))


image = 0.35 + 0.08 * rng.standard_normal((SIDE, SIDE)) + 0.5 * spot(40, 24, 5)
distance = np.abs(np.subtract.outer(np.arange(K), np.arange(K)))  # (K, K)
share = distance / (K - 1)
guidance = (1 - share) * GLOBAL + share * LOCAL
noise = rng.standard_normal(K)[distance]  # the same at equal distance, as in predictions
clean = 0.78 + 0.18 * share
titles = [
    "image",
    "prior:\nsaliency, regions",
    "guidance map\n$G_{ij}$",
    "label map $y_T$:\nnoise",
    "$y_t$: half of\nthe steps",
    "estimates $\\hat y_0$\nof the label",
    "calibrated\nprobabilities",
]
figure = plt.figure(figsize=(10.5, 2.4), facecolor="white")
places = [figure.add_axes((0.012 + 0.142 * i, 0.2, 0.105, 0.46)) for i in range(7)]
places[0].imshow(image, cmap="gray", vmin=0, vmax=1)
places[1].imshow(image, cmap="gray", vmin=0, vmax=1)
places[1].imshow(spot(40, 24, 9), cmap="Reds", alpha=0.8 * spot(40, 24, 9))
for x, y, width in ((31, 15, 2.5), (22, 22, 1.2), (38, 30, 1.2)):
    places[1].add_patch(Rectangle((x, y), 18, 18, fill=False, edgecolor="#e07b00", linewidth=width))
maps = (guidance, noise, 0.6 * clean + 0.5 * noise, clean)
limits = ((0, 1), (-2, 2), (-1, 1.5), (0, 1))
for ax, shown, (low, high) in zip(places[2:6], maps, limits, strict=True):
    ax.imshow(shown, cmap="viridis", vmin=low, vmax=high)
places[6].bar(range(3), [0.04, 0.1, 0.86], color=["#9aa5b1", "#9aa5b1", "#1f6fb4"])
places[6].set_ylim(0, 1)
places[6].spines[["top", "right"]].set_visible(False)
places[6].set_xlabel("classes", fontsize=8)
for ax, title in zip(places, titles, strict=True):
    ax.set_title(title, fontsize=9)
    ax.set_xticks([])
    ax.set_yticks([])
for i in range(6):
    start, end = 0.12 + 0.142 * i, 0.151 + 0.142 * i
    arrow = FancyArrowPatch(
        (start, 0.43), (end, 0.43), transform=figure.transFigure, arrowstyle="->", mutation_scale=12
    )
    figure.add_artist(arrow)
figure.text(0.16, 0.06, "stage one: the prior", fontsize=10, color="#5c6770")
figure.text(0.44, 0.06, "stage two: denoising under its guidance", fontsize=10, color="#5c6770")
figure.savefig(Path(__file__).with_name("method.png"), dpi=100)
