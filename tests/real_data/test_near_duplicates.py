"""Images that look alike, on real images: copies are found, other patients are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from diffmic.datasets import inspect, read_csv

pytestmark = pytest.mark.real_data

SETS = ["aptos2019_dr", "busi_ultrasound", "chest_xray_pneumonia"]


def compressed(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(io.BytesIO(file.getvalue()))


def half(image):
    return image.resize((image.width // 2, image.height // 2))


COPIES = {
    "compressed": compressed,
    "half the size": half,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "upright": lambda image: image.transpose(Image.Transpose.ROTATE_90),
}


@pytest.fixture(scope="module", params=SETS)
def paths(data_folder, request):
    table = read_csv(data_folder / request.param / "labels.csv")
    chosen = np.random.RandomState(0).permutation(len(table))[:300]
    return [table.paths[number] for number in sorted(chosen)]


def test_copies_are_found(paths):
    originals = [Image.open(path).convert("RGB") for path in paths[:40]]
    for name, change in COPIES.items():
        found = inspect([*originals, *map(change, originals)], verbose=0)
        same = sum(found.groups[i] == found.groups[40 + i] for i in range(40))
        assert same >= 38, name


def test_other_eyes_do_not_look_alike(data_folder):
    """The split of this set keeps copies on one side; other eyes are no copies."""
    table = read_csv(data_folder / "aptos2019_dr" / "labels.csv").part("test", "val")
    found = inspect(table, verbose=0)
    for numbers in [*found.duplicates, *found.near_duplicates]:
        first, *others = (
            np.asarray(Image.open(table.paths[n]).convert("L"), dtype=float) for n in numbers
        )
        assert all(np.corrcoef(first.ravel(), o.ravel())[0, 1] > 0.99 for o in others), numbers
    assert found.leaks == []
