"""What a fit takes can be saved, what is saved can be loaded, and a good model is never lost."""

import copy
import datetime
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from tiny import RECIPE, TinyBackbone, small, stripes
from torch import nn
from torchvision.transforms import v2

from diffmic import DiffMICClassifier, DiffMICWarning, InputError, ModelFileError
from diffmic.hub import files
from diffmic.training import Recipe

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
X, Y = stripes(30)


def fit(y=Y, **parameters):
    return DiffMICClassifier(**small(max_epochs=1, **parameters)).fit(X, y)


@pytest.fixture(scope="module")
def fitted():
    return fit()


def load(folder, **options):
    options = {"backbone": TinyBackbone(), "device": "cpu"} | options
    return DiffMICClassifier.from_pretrained(folder, **options)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def objects(*labels):
    found = np.empty(len(labels), object)
    found[:] = labels
    return found


# --- Labels --------------------------------------------------------------------------------------

NO_LABELS = {
    "days": np.array(["2020-01-01", "2021-01-01"], "datetime64[D]"),
    "nanoseconds": np.array(["2020-01-01", "2021-01-01"], "datetime64[ns]"),
    "durations": np.array([1, 2], "timedelta64[s]"),
    "dates": objects(datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)),
    "fractions": objects(Fraction(1, 2), Fraction(1, 3)),
    "complex": np.array([1j, 2j]),
    "tuples": objects((1, 2), (3, 4)),
}


@pytest.mark.parametrize("kind", NO_LABELS)
def test_labels_that_cannot_be_saved_are_refused_before_the_work(kind, monkeypatch):
    monkeypatch.setattr(
        "diffmic.classifier.fit_network", lambda *_, **__: pytest.fail("it was fitted")
    )
    with pytest.raises(InputError, match=r"y|label|class"):
        fit(NO_LABELS[kind][Y % 2])


LABELS = {
    "large": np.array([2**63 + 5, 7], np.uint64),
    "beyond 53 bits": np.array([2**53 + 1, 2**53 + 3]),
    "not UTF-8": np.array(["b\udcf6se", "gut"]),
    "odd text": np.array(["", 'a"\\\n\u2028']),
    "numbers of half precision": np.array([0.0, 1.0], np.float16),
    "small integers": np.array([-1, 3], np.int8),
    "numpy objects": objects(np.str_("a"), np.str_("b")),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_come_back_as_they_were(kind, tmp_path):
    labels = LABELS[kind]
    clf = fit(labels[Y % 2])
    clf.save_pretrained(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.classes_.tolist() == clf.classes_.tolist()
    assert_array_equal(loaded.predict(X), clf.predict(X))
    assert loaded.score(X, labels[Y % 2]) == clf.score(X, labels[Y % 2])


# --- Parameters ----------------------------------------------------------------------------------

BAD = {
    "num_steps": 5000,
    "n_draws": 0,
    "n_views": -1,
    "max_epochs": 0.5,
    "validation_fraction": 2,
    "learning_rate": -1.0,
    "image_size": 5000,
    "task": "segmentation",
    "recipe": "unknown",
    "architecture": "unknown",
    "augment": "unknown",
    "class_names": ["benign", "malignant"],
    "pretrained": None,
    "verbose": object(),
}


@pytest.mark.parametrize("name", BAD)
def test_a_parameter_that_cannot_be_loaded_is_not_saved_over_a_good_model(fitted, tmp_path, name):
    fitted.save_pretrained(tmp_path)
    before = contents(tmp_path)
    changed = copy.copy(fitted).set_params(**{name: BAD[name]})
    with pytest.raises(InputError):
        changed.save_pretrained(tmp_path)
    with pytest.raises(InputError):
        changed.save_pretrained(tmp_path / "new" / "model")
    assert not (tmp_path / "new" / "model").exists()
    assert {name: found for name, found in contents_of_files(tmp_path).items()} == before


def contents_of_files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_an_image_size_that_no_file_may_hold_is_refused_by_the_fit():
    with pytest.raises(InputError, match=r"image_size is 5000; the largest is 4096"):
        fit(image_size=5000)


def test_a_batch_of_one_is_saved_and_refused_by_a_fit_alone(fitted, tmp_path):
    clf = copy.copy(fitted).set_params(batch_size=1)
    assert_allclose(clf.predict_proba(X), fitted.predict_proba(X), atol=1e-6)
    clf.save_pretrained(tmp_path)
    assert load(tmp_path).batch_size == 1
    with pytest.raises(InputError, match=r"batch_size is 1.*set_params\(batch_size=1\)"):
        clf.fit(X, Y)


@dataclass(frozen=True)
class OwnRecipe(Recipe):
    """A recipe with a field that no file knows."""

    curriculum: bool = True


def test_a_recipe_of_a_class_of_ones_own_is_loaded_as_a_recipe(tmp_path):
    own = OwnRecipe(**vars(RECIPE))
    fit(recipe=own).save_pretrained(tmp_path)
    assert load(tmp_path).recipe == RECIPE


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_do_not_replace_good_ones(fitted, tmp_path, value):
    fitted.save_pretrained(tmp_path)
    before = contents(tmp_path)
    clf = copy.deepcopy(fitted)
    with torch.no_grad():
        next(clf.network_.parameters()).fill_(value)
    with pytest.raises(InputError, match=r"is not saved.*NaN or infinity.*unchanged"):
        clf.save_pretrained(tmp_path)
    assert contents(tmp_path) == before


class Buffered(TinyBackbone):
    """A backbone with buffers of every type, and an infinite mask."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        self.register_buffer("exact", torch.rand(2, dtype=torch.float64))
        self.register_buffer("chosen", torch.tensor([True, False]))
        for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.bfloat16):
            self.register_buffer(str(dtype).replace(".", "_"), torch.ones(2, dtype=dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_module_with_buffers_of_any_type_is_trained_saved_and_loaded(tmp_path, dtype):
    clf = fit(backbone=Buffered())
    clf.save_pretrained(tmp_path, dtype=dtype)
    loaded = load(tmp_path, backbone=Buffered())
    assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


def flipping(image):
    return image.flip(-1) if torch.rand(1) < 0.5 else image


@pytest.mark.parametrize("augment", [v2.RandomHorizontalFlip(1.0), flipping])
def test_a_transform_of_the_users_is_passed_again_where_predictions_need_it(tmp_path, augment):
    clf = fit(augment=augment, n_views=2)
    clf.save_pretrained(tmp_path)
    assert load(tmp_path, augment=augment).augment is augment
    assert_array_equal(load(tmp_path, augment=augment).predict_proba(X), clf.predict_proba(X))
    with pytest.raises(ModelFileError, match=r"2 views .*(Flip|flipping).*augment=\.\.\."):
        load(tmp_path)
    clf.set_params(n_views=1).save_pretrained(tmp_path)
    assert load(tmp_path).augment == "auto"


def test_a_transform_for_a_model_that_has_none_of_its_own_is_refused(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    with pytest.raises(ModelFileError, match=r"augment='auto': leave out augment"):
        load(tmp_path, augment=flipping)


def test_a_module_that_cannot_be_passed_again_is_told_before_the_work():
    recipe = replace(RECIPE, cached=False, n_cached_views=0)
    with pytest.warns(DiffMICWarning, match=r"prior_backbone is a module.*will refuse"):
        fit(prior_backbone=TinyBackbone(), recipe=recipe)


# --- Saving while something goes wrong -----------------------------------------------------------


def test_a_disk_that_is_full_leaves_the_old_model_whole(fitted, tmp_path, monkeypatch):
    fitted.save_pretrained(tmp_path)
    before = contents(tmp_path)

    def full(file, content):
        file.write_bytes(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_synced", full)
    with pytest.raises(OSError, match="No space left"):
        fitted.save_pretrained(tmp_path)
    assert contents(tmp_path) == before
    with pytest.raises(OSError, match="No space left"):
        fitted.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_save_leaves_torchs_generators_and_the_module_alone(fitted, tmp_path):
    module: nn.Module = fitted.backbone
    before = copy.deepcopy(module.state_dict())
    state = torch.get_rng_state()
    fitted.save_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
