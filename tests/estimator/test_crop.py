"""The crop of an architecture: what is seen of an image, in a fit, a prediction, and a file."""

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from tiny import TinyBackbone, small, stripes

from diffmic import DiffMICClassifier
from diffmic.errors import InputError, ModelFileError
from diffmic.model import Architecture

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")

X, Y = stripes(60, size=(32, 56))
SQUARES = np.ascontiguousarray(X[:, :, 12:44])


def fit(images=X, **parameters):
    return DiffMICClassifier(**small(max_epochs=1, **parameters)).fit(images, Y)


@pytest.fixture(scope="module")
def cropping():
    return fit(crop="square")


def test_a_crop_is_the_same_as_cropping_before(cropping):
    cut = fit(SQUARES)
    assert_array_equal(cropping.predict_proba(X), cut.predict_proba(SQUARES))
    assert_array_equal(cropping.predict_proba(SQUARES), cut.predict_proba(SQUARES))
    assert cropping.score(X, Y) == cut.score(SQUARES, Y)


def test_what_lies_outside_is_not_seen(cropping):
    changed = X.copy()
    changed[:, :, :12], changed[:, :, 44:] = 0, 255
    assert_array_equal(cropping.predict_proba(changed), cropping.predict_proba(X))
    assert not np.array_equal(fit().predict_proba(changed), fit().predict_proba(X))


def test_streams_are_cropped_too(cropping):
    from torch.utils.data import DataLoader, IterableDataset

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(X[:4])

    expected = cropping.predict_proba(X[:4])
    assert_array_equal(cropping.predict_proba(Stream()), expected)
    assert_array_equal(cropping.predict_proba(DataLoader(Stream(), batch_size=2)), expected)


def test_the_size_of_the_network_is_that_of_what_is_seen(cropping):
    assert (cropping.image_size_, fit().image_size_) == (32, 56)


def test_the_crop_of_a_model_is_that_of_its_fit(cropping):
    expected = cropping.predict_proba(X)
    architecture = cropping.architecture
    try:
        cropping.set_params(architecture=replace(architecture, crop="none"))
        assert_array_equal(cropping.predict_proba(X), expected)
    finally:
        cropping.set_params(architecture=architecture)


def test_the_crop_is_saved_and_loaded(cropping, tmp_path):
    cropping.save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")
    assert (loaded.architecture.crop, loaded.model_.crop) == ("square", "square")
    assert_array_equal(loaded.predict_proba(X), cropping.predict_proba(X))
    assert "central square" in (tmp_path / "README.md").read_text(encoding="utf-8")
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["preprocessing"]["crop"] == "square"


def test_a_model_without_a_crop_has_the_file_it_always_had(tmp_path):
    fit().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert "crop" not in config["preprocessing"]


@pytest.mark.parametrize("wrong", ["circle", 1, [], {"square": 1}, True, "none"])
@pytest.mark.parametrize("place", ["preprocessing", "architecture"])
def test_a_file_with_another_crop_is_refused(cropping, tmp_path, place, wrong):
    cropping.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    (config if place == "preprocessing" else config["network"])[place]["crop"] = wrong
    file.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelFileError, match="crop"):
        DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone())


@pytest.mark.parametrize("wrong", ["center", "circle", 224, True, None, ["square"]])
def test_another_crop_is_an_error_that_names_those_there_are(wrong):
    with pytest.raises(InputError, match=r"crop is .*'none', 'square'"):
        Architecture(crop=wrong)
