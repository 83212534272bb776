"""What in an item is the image, and what the target."""

from collections import UserDict, namedtuple
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffmic.data import Keys, read_inputs
from diffmic.data.items import split_item
from diffmic.errors import InputError

IMAGE, LABEL = torch.arange(12, dtype=torch.uint8).view(1, 3, 4), 2
Item = namedtuple("Item", ["label", "image"])
Positional = namedtuple("Positional", ["first", "second"])


@dataclass
class Record:
    patient: str
    image: Any
    label: int


FORMS = {
    "pair": (IMAGE, LABEL),
    "triple": (IMAGE, LABEL, "patient"),
    "list": [IMAGE, LABEL],
    "image/label": {"image": IMAGE, "label": LABEL, "age": 70},
    "img/lab": {"idx": 1, "lab": LABEL, "img": IMAGE},
    "pixel_values/labels": {"pixel_values": IMAGE, "labels": LABEL},
    "image/class": {"image": IMAGE, "class": LABEL},
    "images/targets": {"images": IMAGE, "targets": LABEL},
    "capitals": {"Image": IMAGE, "Label": LABEL},
    "x/y": {"x": IMAGE, "y": LABEL},
    "mapping": UserDict(pixel_values=IMAGE, labels=LABEL),
    "named tuple": Item(LABEL, IMAGE),
    "named tuple of other names": Positional(IMAGE, LABEL),
    "dataclass": Record("p", IMAGE, LABEL),
    "dict and target": ({"image": IMAGE}, LABEL),
    "image and dict": (IMAGE, {"boxes": [1], "labels": LABEL}),
    "a missing value beside it": {"image": IMAGE, "label": None, "target": LABEL},
}


@pytest.mark.parametrize("item", FORMS.values(), ids=FORMS)
def test_image_and_target_are_found_in_items_of_every_form(item):
    image, target = split_item(item, with_target=True)
    assert image is IMAGE
    assert target == LABEL
    assert split_item(item)[0] is IMAGE


def test_keys_may_be_said():
    item = {"scan": IMAGE, "finding": LABEL, "image": "other.png", "label": 7}
    assert split_item(item, Keys("scan", "finding"), with_target=True) == (IMAGE, LABEL)
    assert split_item(item, Keys("scan", None), with_target=True) == (IMAGE, 7)
    assert split_item({"x": 3, "y": 4, "scan": IMAGE}, Keys("scan"))[0] is IMAGE
    assert split_item(Record("p", IMAGE, LABEL), Keys(label="patient"), with_target=True)[1] == "p"


@pytest.mark.parametrize(
    ("item", "keys", "message"),
    [
        ({"scan": IMAGE, "label": 0}, Keys(), r"keys \['label', 'scan'\].*image_key="),
        ({"x": 3, "y": 4, "scan": IMAGE}, Keys(), r"keys \['scan', 'x', 'y'\].*image_key="),
        ({"image": IMAGE, "img": IMAGE}, Keys(), r"several.*\['image', 'img'\].*image_key="),
        ({"image": IMAGE, "label": 0, "class": 1}, Keys(), r"several.*'class'.*label_key="),
        ({"image": IMAGE, "y": 1}, Keys(), r"no target, but the keys \['image', 'y'\].*label_key"),
        ({"image": IMAGE}, Keys("scan"), r"keys \['image'\], but not the image_key 'scan'"),
        ({"image": IMAGE}, Keys(None, "f"), r"keys \['image'\], but not the label_key 'f'"),
        ((IMAGE, {"a": 1, "b": 2}), Keys(), "no target"),
        ((IMAGE,), Keys(), "no target, but 1 entries"),
        (IMAGE, Keys(), r"no target, but an image; fit needs \(image, target\) pairs"),
        ([{"image": IMAGE}] * 3, Keys(), "list of 3 dicts.*one image per item"),
        ({"train": [], "test": []}, Keys(), "dict of data sets, pass one of them"),
    ],
)
def test_what_is_missing_or_ambiguous_is_an_error_that_names_the_keys(item, keys, message):
    with pytest.raises(InputError, match=message):
        split_item(item, keys, with_target=True)


def test_an_ambiguous_target_is_no_error_where_it_is_not_needed():
    item = {"image": IMAGE, "label": 0, "class": 1}
    assert split_item(item) == (IMAGE, None)
    assert split_item(item, Keys(label="class"), with_target=True) == (IMAGE, 1)


def test_undecoded_files_of_hugging_face_are_images(tmp_path):
    content = BytesIO()
    Image.new("L", (4, 3), 7).save(content, "png")
    path = tmp_path / "image.png"
    path.write_bytes(content.getvalue())
    by_bytes, by_path = (
        {"bytes": content.getvalue(), "path": None},
        {"bytes": None, "path": str(path)},
    )
    assert split_item({"image": by_path, "label": 1}, with_target=True) == (str(path), 1)
    assert split_item(by_path)[0] == str(path)
    assert split_item((by_path, 1), with_target=True) == (str(path), 1)
    assert split_item({"image": by_bytes})[0].getvalue() == content.getvalue()


RGB = np.random.RandomState(0).randint(0, 256, (5, 3, 6, 10), np.uint8)


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy, list])
@pytest.mark.parametrize("kind", [dict, UserDict])
def test_a_batch_that_is_a_dict_can_be_read(form, kind):
    labels = [0, 1, 2, 0, 1]
    inputs = read_inputs(kind(image=form(RGB), label=labels), with_targets=True)
    np.testing.assert_array_equal(torch.stack([inputs.images[i] for i in range(5)]), RGB)
    assert inputs.targets.tolist() == labels


def test_an_item_that_is_a_dict_can_be_predicted():
    inputs = read_inputs({"scan": RGB[0]}, known_channels=3, keys=Keys("scan"))
    np.testing.assert_array_equal(inputs.images[0], RGB[0])
    assert len(inputs.images) == 1


def test_a_dict_without_images_is_an_error_that_names_its_keys():
    with pytest.raises(InputError, match=r"X is a dict with the keys \['scan'\].*image_key="):
        read_inputs({"scan": RGB}, known_channels=3)


def test_a_list_of_files_of_hugging_face_can_be_read(tmp_path):
    files = []
    for i, image in enumerate(RGB):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{i}.png")
        files.append({"bytes": None, "path": str(tmp_path / f"{i}.png")})
    inputs = read_inputs(files)
    np.testing.assert_array_equal(torch.stack([inputs.images[i] for i in range(5)]), RGB)


def test_an_image_called_x_without_a_y_has_no_target():
    item = {"x": np.zeros((2, 2), np.uint8)}
    with pytest.raises(InputError, match="no target"):
        split_item(item, with_target=True)
    assert split_item(item)[1] is None
