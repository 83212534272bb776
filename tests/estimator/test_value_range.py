"""Values of black and white: found over the training images or given, and part of the model."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from tiny import small, stripes
from torch.utils.data import DataLoader

from diffmic import DiffMICClassifier, DiffMICWarning, InputError, ModelFileError
from diffmic.data.ranges import ValueRange, found_range

X, Y = stripes(30)
TWELVE = X.astype(np.uint16) * 16 + 7  # 7 to 4087
HOUNSFIELD = (X / 255 * 1400 - 1000).astype(np.float32)


def fit(images, y=Y, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DiffMICClassifier(**small(max_epochs=1, **parameters)).fit(images, y)


def told(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught if w.category is DiffMICWarning]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 4095, (0, 4095)),
        (5, 3000, (0, 4095)),
        (0, 65535, (0, 65535)),
        (0, 32768, (0, 65535)),
        (0, 255, (0, 255)),
        (0, 1, (0, 1)),
        (0, 0, (0, 1)),
        (-1000, 3071, (-1024, 4095)),
        (-1024, 100, (-1024, 127)),
        (-2000, -1000, (-2048, 1)),
        (30000, 34000, (30000, 34000)),
        (500, 500, (0, 511)),
    ],
)
def test_a_range_is_rounded_to_bits_unless_it_is_narrow(low, high, expected):
    found = found_range(low, high)
    assert (found.low, found.high, found.given) == (*expected, False)


@pytest.mark.parametrize("kind", ["uint16", "tensor", "list", "PNG", "mode I"])
def test_images_of_12_bits_are_learnt_as_those_of_8(tmp_path, kind):
    if kind == "PNG":
        images = [tmp_path / f"{i}.png" for i in range(30)]
        for path, image in zip(images, TWELVE, strict=True):
            Image.fromarray(image).save(path)
    else:
        images = {
            "uint16": TWELVE,
            "tensor": torch.from_numpy(TWELVE),
            "list": list(TWELVE),
            "mode I": [Image.fromarray(image.astype(np.int32)) for image in TWELVE],
        }[kind]
    clf = fit(images)
    assert clf.model_.value_range == ValueRange(0, 4095)
    same = fit((TWELVE / 4095).astype(np.float32))
    proba = clf.predict_proba(images)
    np.testing.assert_allclose(proba, same.predict_proba(TWELVE / 4095), atol=1e-5)
    one = clf.predict_proba(images[:1])
    np.testing.assert_allclose(one, proba[:1], atol=1e-5)  # not the image's own range
    np.testing.assert_allclose(clf.predict_proba(TWELVE.astype(np.int64)), proba, atol=1e-5)


def test_images_of_8_and_12_bits_may_be_mixed():
    mixed = [x if i % 2 else t for i, (x, t) in enumerate(zip(X, TWELVE, strict=True))]
    clf = fit(mixed)
    assert clf.model_.value_range == ValueRange(0, 4095)
    even = fit([x if i % 2 else (t / 4095) for i, (x, t) in enumerate(zip(X, TWELVE, strict=True))])
    np.testing.assert_allclose(clf.predict_proba(X), even.predict_proba(X), atol=1e-5)


def test_validation_images_and_evaluations_have_the_range_of_the_training_images():
    clf = fit(TWELVE, validation_fraction=None)
    held_out = TWELVE // 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = DiffMICClassifier(**small(max_epochs=1)).fit(
            TWELVE, Y, validation_data=(held_out, Y)
        )
    assert clf.model_.value_range == other.model_.value_range == ValueRange(0, 4095)
    assert clf.evaluate(held_out, Y) == clf.evaluate((held_out / 4095).astype(np.float32), Y)


def test_a_given_range_is_that_of_floats_and_integers():
    expected = fit((HOUNSFIELD + 1000) / 1400).predict_proba((HOUNSFIELD + 1000) / 1400)
    for images in (HOUNSFIELD, HOUNSFIELD.astype(np.float64), torch.from_numpy(HOUNSFIELD)):
        clf = fit(images, value_range=(-1000, 400))
        assert clf.model_.value_range == ValueRange(-1000, 400, given=True)
        np.testing.assert_allclose(clf.predict_proba(images), expected, atol=1e-4)
    whole = HOUNSFIELD.round().astype(np.int16)
    clf = fit(whole, value_range=(-1000, 400))
    np.testing.assert_allclose(clf.predict_proba(whole.astype(float)), clf.predict_proba(whole))
    np.testing.assert_allclose(clf.predict_proba(list(whole)), clf.predict_proba(whole), atol=1e-6)


def test_values_beyond_a_given_range_are_clipped_without_a_word():
    clf = fit(HOUNSFIELD, value_range=(-600, 100))
    assert told(lambda: clf.predict_proba(HOUNSFIELD)) == []
    clipped = HOUNSFIELD.clip(-600, 100)
    np.testing.assert_allclose(clf.predict_proba(clipped), clf.predict_proba(HOUNSFIELD), atol=1e-6)


def test_images_far_outside_are_pointed_out():
    clf = fit(TWELVE)
    messages = told(lambda: clf.predict_proba(TWELVE[:8] * 15))
    assert len(messages) == 1
    assert messages[0].startswith("8 of 8 images have pixels far outside the value range (0, 4095)")
    few = TWELVE.copy()
    few[:, 0, :5] = 60000  # a burnt-in mark
    assert told(lambda: clf.predict_proba(few)) == []
    clf = fit(HOUNSFIELD, value_range=(-1000, 400))
    messages = told(lambda: clf.predict_proba(HOUNSFIELD + 5000))
    assert len(messages) == 1
    assert "far outside the value range (-1000, 400)" in messages[0]


class Folder:
    """A Dataset that lists its files, as those of torchvision do."""

    def __init__(self, paths):
        self.samples = [(path, 0) for path in paths]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return np.load(self.samples[index][0]), 0


def test_images_far_outside_are_named(tmp_path):
    clf = fit(TWELVE)
    images = TWELVE[:8].copy()
    images[[1, 4, 5, 6]] *= 15
    paths = [str(tmp_path / f"{number}.npy") for number in range(8)]
    for path, image in zip(paths, images, strict=True):
        np.save(path, image)
    files = f"The first: {paths[1]!r}, {paths[4]!r}, {paths[5]!r}, …."
    places = "The first: image 1, image 4, image 5, …."
    for found, named in [
        (paths, files),
        (Folder(paths), files),
        (images, places),
        (list(images), places),
        (DataLoader(list(images), batch_size=3, collate_fn=list), places),
    ]:
        (message,) = told(lambda found=found: clf.predict_proba(found))
        assert message.startswith("4 of 8 images have pixels far outside")
        assert message.endswith(named)
    (message,) = told(lambda: clf.predict_proba(paths[1]))
    assert message.endswith(f"The first: {paths[1]!r}.")


def test_images_of_a_fit_in_which_something_is_noticed_are_named(tmp_path):
    images = [Image.fromarray(image) for image in X]
    for number in (3, 7):
        images[number].putalpha(100)
        images[number].save(tmp_path / f"{number}.png")
        images[number] = tmp_path / f"{number}.png"
    names = ", ".join(repr(str(tmp_path / f"{number}.png")) for number in (3, 7))
    with pytest.warns(DiffMICWarning, match=f"2 of 30 images have .* The first: {names}"):
        DiffMICClassifier(**small(max_epochs=1)).fit(images, Y)
    floats = (X / 255).astype(np.float32)
    floats[[9, 20], 0, 0] = 1.2
    with pytest.warns(DiffMICWarning, match="2 of 30 images have .* The first: image 9, image 20"):
        DiffMICClassifier(**small(max_epochs=1)).fit(floats, Y)


def test_a_range_that_one_image_makes_wide_is_pointed_out():
    images = TWELVE.copy()
    images[3, 2, 2] = 65535
    message = r"most images .* 3999, .*: image 3 reaches 65535.*value_range"
    with pytest.warns(DiffMICWarning, match=message):
        DiffMICClassifier(**small(max_epochs=1)).fit(images, Y)


def test_a_given_range_that_leaves_images_nearly_black_is_pointed_out():
    message = r"largest pixel of all images is 400, so that with value_range=\(-1000, 20000\) they"
    with pytest.warns(DiffMICWarning, match=message):
        DiffMICClassifier(**small(max_epochs=1, value_range=(-1000, 20000))).fit(HOUNSFIELD, Y)


def test_images_of_8_bits_are_always_0_to_255():
    with pytest.warns(DiffMICWarning, match=r"All images have 8 bits.*value_range does not apply"):
        DiffMICClassifier(**small(max_epochs=1, value_range=(0, 100))).fit(X, Y)
    mixed = [x if i % 2 else t for i, (x, t) in enumerate(zip(X, TWELVE, strict=True))]
    clf = fit(mixed, value_range=(0, 4095))
    np.testing.assert_allclose(
        clf.predict_proba(X), clf.predict_proba((X / 255 * 4095).astype(np.float32)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (HOUNSFIELD, r"Hounsfield.*value_range"),
        (HOUNSFIELD.astype(np.int16), r"int16.*value_range"),
        (X.astype(np.int64), r"int64.*uint8.*value_range"),
        (X / 127.5 - 1, r"−1…1.*value_range=\(-1, 1\)"),
        (X.astype(np.float32), "255 .*uint8"),
        ((X / 255 - 0.45) / 0.22, "Normalize"),
        (X / 255 - 0.5, "Normalize|clip"),
    ],
    ids=["Hounsfield", "int16", "int64", "-1 to 1", "0 to 255", "normalised", "centred"],
)
@pytest.mark.parametrize("form", [lambda x: x, list, torch.from_numpy])
def test_values_whose_range_is_not_known_are_refused_with_advice(images, message, form):
    clf = fit(X)
    for call in (lambda: clf.predict_proba(form(images)), lambda: fit(form(images))):
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.parametrize(
    "value",
    [5, "low", (1,), (2, 1), (1, 1), (0, np.inf), (0, np.nan), (None, 1), (0, 1, 2), [True, 2]],
)
def test_an_impossible_range_is_refused(value):
    with pytest.raises(InputError, match="value_range is"):
        DiffMICClassifier(**small(value_range=value)).fit(X, Y)


@pytest.mark.parametrize("value_range", [None, (-1000, 400), [0, 4095.5], np.array([0, 4095])])
def test_the_range_is_saved_and_loaded(tmp_path, value_range):
    images = HOUNSFIELD if isinstance(value_range, tuple) else TWELVE
    own = {"value_range": value_range, "backbone": "test_resnet", "pretrained": False}
    clf = DiffMICClassifier(**small(max_epochs=1, image_size=32, **own))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf.fit(images, Y)
    clf.save_pretrained(tmp_path / "model")
    loaded = DiffMICClassifier.from_pretrained(tmp_path / "model", device="cpu")
    assert loaded.model_.value_range == clf.model_.value_range
    expected = None if value_range is None else tuple(value_range)
    assert loaded.value_range == expected
    np.testing.assert_allclose(loaded.predict_proba(images), clf.predict_proba(images), atol=1e-5)
    assert clone(loaded).value_range == expected


def test_a_model_of_8_bits_is_saved_as_before(tmp_path):
    clf = fit(X, backbone="test_resnet", pretrained=False, image_size=32)
    clf.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert "value_range" not in config["preprocessing"]


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [0, 1],
        {"low": 0},
        {"low": 2, "high": 1, "given": True},
        {"low": 0, "high": 1, "given": 1},
    ],
)
def test_a_damaged_range_in_a_file_is_refused(tmp_path, wrong):
    clf = fit(TWELVE, backbone="test_resnet", pretrained=False, image_size=32)
    clf.save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    config["preprocessing"]["value_range"] = wrong
    file.write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="value_range"):
        DiffMICClassifier.from_pretrained(tmp_path / "model", device="cpu")


def test_setting_the_parameter_leaves_the_model_as_it_is():
    clf = fit(HOUNSFIELD, value_range=(-1000, 400))
    before = clf.predict_proba(HOUNSFIELD)
    clf.set_params(value_range=(0, 1))
    np.testing.assert_array_equal(clf.predict_proba(HOUNSFIELD), before)
