"""Regions lie on the sign that decides the class, where it is known."""

import numpy as np
import pytest

from diffmic import DiffMICClassifier
from diffmic.datasets import make_lesions
from diffmic.training import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")]
QUICK = Recipe(n_cached_views=0, denoiser_epochs=1)  # the second stage moves no region


# benchmarks/regions.py trains for longer where images have 224 pixels. By the saliency alone, the
# most attended region holds 0.4 of the lesions of images of 96 pixels, and any region 0.6.
@pytest.mark.parametrize(
    ("size", "healthy", "images", "epochs", "attended_least", "any_least"),
    [(224, True, 210, 5, 0.8, 0.9), (224, False, 210, 5, 0.7, 0.9), (96, True, 450, 12, 0.7, 0.8)],
)
def test_regions_lie_on_the_lesion(size, healthy, images, epochs, attended_least, any_least):
    options = {"image_size": size, "noise": 0.06, "healthy": healthy, "return_centers": True}
    X, y, _ = make_lesions(images, random_state=0, **options)
    new, truth, centers = make_lesions(90, random_state=1, **options)
    # In fp32, so that what is learnt in so few steps does not depend on the CPU.
    options = {"random_state": 0, "verbose": 0, "device": "cpu", "precision": "fp32"}
    clf = DiffMICClassifier(max_epochs=epochs, recipe=QUICK, **options)
    found = clf.fit(X, y).explain(new)
    assert (clf.predict(new, stage="prior") == truth).mean() > 0.9
    x, y = centers[:, None].T  # (1, n) each
    left, top, right, bottom = found.boxes.transpose(2, 1, 0)  # (K, n) each
    inside = ((left <= x) & (x < right) & (top <= y) & (y < bottom)).T
    sick = truth > 0
    attended = inside[np.arange(90), found.attention.argmax(axis=1)][sick].mean()
    share = ((right - left) * (bottom - top)).sum(axis=0).max() / size**2
    assert inside.any(axis=1)[sick].mean() >= any_least
    assert attended >= attended_least
    assert share <= 0.3
