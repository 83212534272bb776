"""DiffMIC (v1) by the estimator: fitted, asked, saved, loaded, and gone on with."""

import copy
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from tiny import TinyBackbone, small, stripes

from diffmic import DiffMICClassifier, InputError, ModelFileError
from diffmic.datasets import make_lesions
from diffmic.model import Conditions, VectorNetwork, resolve_architecture
from diffmic.training import resolve_recipe

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
PAPER = resolve_recipe("paper-v1")
# At the noise that is learnt first, and with few epochs.
QUICK = replace(
    PAPER, denoiser_epochs=4, ema_decay=None, ema=0.2, denoiser_learning_rate=1e-2, patience=None
)


def tiny(**changes):
    return small(**{"recipe": QUICK, "augment": None, "num_train_timesteps": 50} | changes)


def fitted(labels=lambda y: y, **changes):
    X, y = stripes(40)
    return DiffMICClassifier(**tiny(**changes)).fit(X, labels(y))


@pytest.fixture(scope="module")
def classifier():
    return fitted()


@pytest.fixture(scope="module")
def new():
    return stripes(9, seed=5)


FROZEN = replace(
    QUICK,
    joint=False,
    cached=True,
    n_cached_views=1,
    denoiser_epochs=20,
    steps_per_epoch=60,
    ema=0.1,
)


def learns(recipe, images, new, *, least=0.8, **parameters):
    """Whether a fit is better than chance (one third) with few steps and with all."""
    clf = DiffMICClassifier(**tiny(recipe=recipe, feature_dim=64, **parameters)).fit(*images)
    for num_steps in (10, 50):
        found = clf.evaluate(*new, num_steps=num_steps)
        assert found["diffusion"]["accuracy"] > least, num_steps
        assert found["prior"]["accuracy"] > least
    scores = clf.validation_scores_
    assert set(scores) == {"prior", "diffusion", "diffusion_alone"}


@pytest.mark.slow
def test_it_learns_from_a_frozen_prior():
    learns(FROZEN, stripes(90), stripes(60, seed=5), max_epochs=8)


@pytest.mark.slow
def test_it_learns_with_its_prior():
    recipe = replace(QUICK, denoiser_epochs=200, ema=0.1)
    learns(recipe, stripes(120), stripes(60, seed=5), max_epochs=8)


@pytest.mark.slow
def test_it_learns_lesions_with_a_pretrained_backbone():
    X, y = make_lesions(240, image_size=96, random_state=0)
    learns(
        FROZEN,
        (X, y),
        make_lesions(90, image_size=96, random_state=1),
        least=0.45,  # 0.64 and 0.61 were found
        **{"backbone": "tf_efficientnet_lite0", "learning_rate": 1e-3, "max_epochs": 8},
        validation_fraction=0.15,
    )


@pytest.mark.parametrize("num_steps", [1, 3, 50])
def test_probabilities_are_the_same_in_any_batch_and_order(classifier, new, num_steps):
    X = new[0]
    every = classifier.predict_proba(X, num_steps=num_steps)
    assert_allclose(every.sum(axis=1), 1)
    order = np.random.RandomState(0).permutation(len(X))
    for batch_size in (1, 2, 5):
        clf = copy.copy(classifier).set_params(batch_size=batch_size)
        found = clf.predict_proba(X[order], num_steps=num_steps)
        assert_allclose(found, every[order], atol=1e-5)
    assert_array_equal(classifier.predict_proba(X, num_steps=num_steps), every)


def test_another_fit_with_the_same_seed_gives_the_same_probabilities(classifier, new):
    assert_array_equal(fitted().predict_proba(new[0]), classifier.predict_proba(new[0]))
    other = fitted(random_state=1).predict_proba(new[0])
    assert not np.allclose(other, classifier.predict_proba(new[0]))


def test_draws_and_steps_have_their_meaning(classifier, new):
    one, many = (classifier.predict_proba(new[0], n_draws=n) for n in (1, 5))
    assert not np.allclose(one, many)
    with pytest.raises(InputError, match="num_steps is 51"):
        classifier.predict_proba(new[0], num_steps=51)


def test_fewer_epochs_than_steps_are_no_matter_and_both_stages_are_reported(classifier, new):
    assert isinstance(classifier.network_, VectorNetwork)
    stages = [row["stage"] for row in classifier.history_]
    assert stages == ["prior"] * 3 + ["diffusion"] * 4
    assert {"prior", "diffusion", "diffusion_alone"} <= set(classifier.evaluate(*new))
    prior = classifier.predict_proba(new[0], stage="prior")
    assert not np.allclose(prior, classifier.predict_proba(new[0]))


def test_explanations_are_the_priors(classifier, new):
    found = classifier.explain(new[0])
    assert found.saliency.shape[:2] == (9, 3)
    assert found.boxes.shape == (9, classifier.network_.n_regions, 4)
    assert found.heatmap(0).shape == (3, 32, 32)
    assert_allclose(found.attention.sum(axis=1), 1, rtol=1e-5)
    assert classifier.transform(new[0]).shape == (9, 16)


LABELS = {
    "multi-class": (lambda y: np.array(["a", "b", "c"])[y], {}),
    "ordinal": (lambda y: y, {"task": "ordinal"}),
    "multi-label": (lambda y: (y[:, None] == [0, 1, 2]).astype(int), {}),
    "two classes": (lambda y: y > 0, {}),
}


@pytest.mark.parametrize("kind", LABELS)
def test_a_loaded_model_gives_the_same_answers(new, kind, tmp_path):
    labels, parameters = LABELS[kind]
    clf = fitted(labels, max_epochs=2, **parameters)
    clf.save_pretrained(tmp_path)
    loaded = DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")
    assert isinstance(loaded.network_, VectorNetwork)
    for stage in ("prior", "diffusion"):
        expected = clf.predict_proba(new[0], stage=stage)
        assert_array_equal(loaded.predict_proba(new[0], stage=stage), expected)
    assert_array_equal(loaded.predict(new[0]), clf.predict(new[0]))
    assert loaded.recipe == clf.recipe
    text = (tmp_path / "README.md").read_text()
    assert "[DiffMIC](https://arxiv.org/abs/2303.10610) (v1)" in text
    assert "drifts to the prior" in text


def test_pickles_and_clones(classifier, new):
    again = pickle.loads(pickle.dumps(classifier))
    assert_array_equal(again.predict_proba(new[0]), classifier.predict_proba(new[0]))
    unfitted = clone(classifier)
    assert unfitted.recipe == classifier.recipe
    assert not hasattr(unfitted, "model_")


def test_the_rewritten_network_answers_alike(classifier, new):
    plain = copy.copy(classifier).compile("plain")
    rewritten = copy.copy(classifier).compile("auto")
    expected = plain.predict_proba(new[0])
    assert_allclose(rewritten.predict_proba(new[0]), expected, atol=1e-4)


def test_a_fit_goes_on_from_the_fitted_network(new):
    clf = fitted(max_epochs=1, warm_start=True)
    first = clf.network_.state_dict()["denoiser.out.weight"].clone()
    clf.set_params(recipe=replace(QUICK, denoiser_epochs=1, denoiser_learning_rate=1e-7))
    clf.fit(*stripes(40))
    torch.testing.assert_close(
        clf.network_.state_dict()["denoiser.out.weight"], first, atol=1e-4, rtol=0
    )


def test_a_fit_does_not_go_on_from_the_other_version():
    clf = fitted(max_epochs=1, warm_start=True)
    clf.set_params(recipe="default")
    before = clf.model_
    with pytest.raises(InputError, match=r"process 'drift', and that of the recipe of 'label-map'"):
        clf.fit(*stripes(40))
    assert clf.model_ is before
    X, y = stripes(40)
    clf.set_params(recipe=small()["recipe"])
    clf.fit(X, np.array(["a", "b"])[y % 2])  # other classes: the backbone alone is kept
    assert not isinstance(clf.network_, VectorNetwork)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process": "label-map"}, "does not go with it"),
        ({"process": "sideways"}, "process is 'sideways'"),
        ({"process": 7}, "process is 7"),
        ({"sampler": "ddim"}, "does not go with it"),
        ({"prediction_type": "v"}, "does not go with it"),
        ({"timestep_spacing": "first"}, "timestep_spacing is 'first'"),
        ({"drift": True}, "drift"),
    ],
)
def test_a_file_that_was_changed_is_refused(classifier, tmp_path, change, message):
    classifier.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    config["network"]["diffusion"].update(change)
    file.write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match=message):
        DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")


def test_weights_of_the_other_version_are_refused(classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    other = fitted(recipe=small()["recipe"], max_epochs=1)
    other.save_pretrained(tmp_path / "other")
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    theirs = json.loads((tmp_path / "other" / "config.json").read_text())
    config["network"]["diffusion"] = theirs["network"]["diffusion"]
    file.write_text(json.dumps(config))
    with pytest.raises(ModelFileError):
        DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")


def test_a_file_from_before_there_was_a_process_is_of_a_label_map(tmp_path):
    fitted(recipe=small()["recipe"], max_epochs=1).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    del config["network"]["diffusion"]["process"]
    for name in ("joint", "ema_decay"):
        del config["parameters"]["recipe"][name]
    del config["parameters"]["recipe"]["diffusion"]["process"]
    file.write_text(json.dumps(config))
    loaded = DiffMICClassifier.from_pretrained(tmp_path, backbone=TinyBackbone(), device="cpu")
    assert loaded.network_.settings.process == "label-map"
    assert not loaded.recipe.joint


def test_a_prior_alone_is_frozen_where_the_recipe_caches_it(new):
    clf = fitted(recipe=replace(FROZEN, denoiser_epochs=2, feature_noise=1.0))
    assert isinstance(clf.network_, VectorNetwork)
    assert clf.predict_proba(new[0]).shape == (9, 3)


def test_cached_recipes_need_no_region_encoder_but_an_image_encoder():
    recipe = replace(FROZEN, denoiser_epochs=1)
    fitted(recipe=recipe, region_backbone="test_resnet", max_epochs=1, pretrained=False)
    with pytest.raises(InputError, match="has a prior_backbone"):
        fitted(recipe=recipe, prior_backbone="test_resnet", max_epochs=1, pretrained=False)


@pytest.mark.slow
def test_the_preset_fits_tiny_images():
    clf = DiffMICClassifier.from_preset(
        "paper-v1",
        backbone=TinyBackbone(12),
        architecture=replace(
            resolve_architecture("paper-v1"),
            prior_backbone="test_resnet",
            region_backbone="test_resnet",
            n_regions=2,
            region_size=32,
            feature_dim=32,
        ),
        recipe=replace(PAPER, denoiser_epochs=2),
        pretrained=False,
        image_size=64,
        max_epochs=1,
        random_state=0,
        verbose=0,
    )
    X, y = stripes(24, size=64)
    assert clf.fit(X, y).predict_proba(X[:3]).shape == (3, 3)


class FrozenPrior(torch.nn.Module):
    """A prior of one's own that knows nothing, and learns nothing."""

    n_regions, image_channels, region_channels = 1, 3, 3

    def forward(self, images):
        means = images.mean(dim=(2, 3))
        return Conditions.of(means, means)


class OwnDenoiser(torch.nn.Module):
    """A denoiser of one's own, row by row."""

    def __init__(self, plan):
        super().__init__()
        self.layer = torch.nn.Linear(2 * plan.num_classes, plan.num_classes)

    def forward(self, guidance, noisy, timesteps, context):
        assert guidance.shape[1] == timesteps.shape[1] == 1
        return self.layer(torch.cat([noisy, guidance], dim=-1))


def test_parts_of_ones_own_serve_it_too(new):
    def squared(output, target):
        return (output - target).square().mean(dim=-1)

    recipe = replace(QUICK, denoiser_epochs=1, denoiser_loss=squared)
    clf = fitted(recipe=recipe, prior=FrozenPrior(), denoiser=OwnDenoiser, max_epochs=1)
    assert isinstance(clf.network_.denoiser.own, OwnDenoiser)
    assert clf.predict_proba(new[0]).shape == (9, 3)
    assert [row["stage"] for row in clf.history_] == ["diffusion"]
