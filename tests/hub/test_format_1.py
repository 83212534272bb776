"""Files of format version 1 load, and predict the same as the file that is saved today."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny import RECIPE, TinyBackbone, small, stripes

from diffmic import DiffMICClassifier, ModelFileError
from diffmic.model import Architecture, resolve_architecture

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
OLD_DIFFUSION = {"prediction_type": "parameterization", "timestep_spacing": "grid"}
# Classes were drawn as they occur, or by a balance that predictions did not undo.
UNBALANCED = replace(RECIPE, balance=0.0)
LABELS = {
    "multi-class": lambda y: np.array(["across", "up", "plain"])[y],
    "multi-label": lambda y: (y[:, None] == [0, 1]).astype(int),
}


def renamed(values, names):
    return {names.get(name, name): value for name, value in values.items()}


def format_1(config):
    """The configuration of a model as format version 1 had it, key for key."""
    multilabel = config["task"] == "multilabel"
    parameters, network = dict(config["parameters"]), config["network"]
    architecture = parameters.pop("architecture")
    if isinstance(architecture, str):
        architecture = asdict(resolve_architecture(architecture))
    recipe = parameters["recipe"]
    if isinstance(recipe, dict):
        recipe = renamed(recipe, {"n_cached_views": "n_views"})
        recipe["diffusion"] = renamed(recipe["diffusion"], OLD_DIFFUSION)
        del recipe["patience"], recipe["denoiser_epochs"]
    del parameters["task"], parameters["n_views"]
    return {
        "format_version": 1,
        "classes": config["classes"],
        "multilabel": multilabel,
        "seed": config["seed"],
        "calibrations": {
            stage: {"stage": stage, "multilabel": multilabel, **calibration}
            for stage, calibration in config["calibrations"].items()
        },
        "thresholds": config["thresholds"],
        "validation_scores": {
            stage: config["validation_scores"][stage] for stage in ("diffusion", "prior")
        },
        "history": config["history"],
        "diffusion_trained": True,
        "versions": config["versions"],
        "card": config["card"],
        "parameters": {
            **renamed(parameters, {"n_draws": "n_samples"}),
            **architecture,
            "backbone": network["backbone"],
            "recipe": recipe,
            "early_stopping": True,
            "n_iter_no_change": 10,
        },
        "diffusion": renamed(network["diffusion"], OLD_DIFFUSION),
        "preprocessing": config["preprocessing"],
        "weights_sha256": config["weights_sha256"],
    }


def downgrade(new, old, change=lambda config: None):
    """A copy of a saved model with a configuration of format version 1, changed if wanted."""
    shutil.copytree(new, old)
    config = format_1(json.loads((new / "config.json").read_text()))
    change(config)
    (old / "config.json").write_text(json.dumps(config))
    return old


@pytest.fixture(scope="module", params=LABELS)
def new(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("new") / "model"
    X, y = stripes(60)
    parameters = small(
        num_train_timesteps=1000,
        region_importance="paper",
        region_map="coarse",
        recipe=UNBALANCED,
        augment=None,
    )
    DiffMICClassifier(**parameters).fit(X, LABELS[request.param](y)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A model of the names of backbone and recipe, with the architecture of that format."""
    folder = tmp_path_factory.mktemp("named") / "model"
    parameters = {
        **{"backbone": "test_resnet", "pretrained": False, "max_epochs": 1},
        "architecture": Architecture(region_importance="paper", region_map="coarse"),
    }
    options = {"num_steps": 3, "random_state": 0, "verbose": 0, "device": "cpu"}
    DiffMICClassifier(**parameters, **options).fit(*stripes(30)).save_pretrained(folder)
    return folder


def load(folder, backbone=True):
    return DiffMICClassifier.from_pretrained(
        folder, backbone=TinyBackbone() if backbone else None, device="cpu"
    )


def test_a_file_of_format_1_gives_the_same_answers(new, tmp_path, new_images):
    X = new_images[0]
    today, old = load(new), load(downgrade(new, tmp_path / "old"))
    for stage in ("prior", "diffusion"):
        expected = today.predict_proba(X, stage=stage)
        assert_array_equal(old.predict_proba(X, stage=stage), expected)
        assert_array_equal(old.predict(X, stage=stage), today.predict(X, stage=stage))
    assert old.classes_.tolist() == today.classes_.tolist()
    assert old.task_ is today.task_
    assert old.calibrations_ == today.calibrations_
    assert old.history_ == today.history_
    assert old.card_ == today.card_
    assert old.model_.sampling == today.model_.sampling


def test_its_parameters_come_back_by_their_new_names(new, tmp_path):
    today, old = load(new), load(downgrade(new, tmp_path / "old"))
    for name in set(today.get_params()) - {"backbone", "recipe"}:
        assert getattr(old, name) == getattr(today, name), name
    assert old.recipe == replace(UNBALANCED, patience=10)


@pytest.mark.parametrize(("early_stopping", "patience"), [(True, 7), (False, None)])
def test_its_early_stopping_is_the_patience_of_its_recipe(new, tmp_path, early_stopping, patience):
    change = {"early_stopping": early_stopping, "n_iter_no_change": 7}
    old = downgrade(new, tmp_path / "old", lambda config: config["parameters"].update(change))
    assert load(old).recipe.patience == patience


def test_its_metrics_were_not_cross_fitted_and_are_left_out(new, tmp_path):
    old = load(downgrade(new, tmp_path / "old"))
    assert old.validation_scores_ == {}
    assert old.model_.drawing_ratio is None


def test_it_can_be_saved_in_todays_format(new, tmp_path, new_images):
    old = load(downgrade(new, tmp_path / "old"))
    old.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["format_version"] == 2
    again = load(tmp_path / "again")
    assert_array_equal(again.predict_proba(new_images[0]), old.predict_proba(new_images[0]))
    assert asdict(again.card_) == asdict(old.card_)


def test_a_model_whose_diffusion_was_not_trained_has_its_prior(new, tmp_path, new_images):
    def untrained(config):
        config["diffusion_trained"] = False
        config["validation_scores"] = {"prior": config["validation_scores"]["prior"]}

    old = load(downgrade(new, tmp_path / "old", untrained))
    expected = load(new).predict_proba(new_images[0], stage="prior")
    assert_array_equal(old.predict_proba(new_images[0], stage="prior"), expected)
    assert set(old.calibrations_) == {"prior"}
    with pytest.raises(ValueError, match="stage='prior'"):
        old.predict_proba(new_images[0])


def test_views_are_those_of_the_file_or_one(new, tmp_path):
    three = downgrade(new, tmp_path / "three", lambda c: c["parameters"].update(n_views=3))
    assert load(three).n_views == load(three).model_.sampling.n_views == 3
    assert load(downgrade(new, tmp_path / "none")).n_views == 1


def test_names_of_backbone_and_recipe_come_back(named, tmp_path, new_images):
    # Its classes were drawn by a balance that is undone today, and was not then.
    config = json.loads((named / "config.json").read_text())
    counts = np.array(config["drawing_ratio"])
    assert_allclose(counts, counts[0], rtol=0.1)
    old = load(downgrade(named, tmp_path / "old"), backbone=False)
    assert (old.backbone, old.recipe) == ("test_resnet", "default")
    X = new_images[0]
    expected = load(named, backbone=False).predict_proba(X, stage="prior")
    assert_array_equal(old.predict_proba(X, stage="prior"), expected)
    assert np.isfinite(old.predict_proba(X)).all()


@pytest.mark.parametrize("n_timesteps", [50, 999, 2000])
def test_another_number_of_timesteps_is_refused(new, tmp_path, n_timesteps):
    old = downgrade(
        new,
        tmp_path / "old",
        lambda config: config["parameters"].update(num_train_timesteps=n_timesteps),
    )
    with pytest.raises(ModelFileError, match=rf"with {n_timesteps} timesteps.*Train it again"):
        load(old)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("parameters"), "KeyError: 'parameters'"),
        (lambda c: c["parameters"].pop("n_samples"), "n_samples"),
        (lambda c: c.pop("multilabel"), "multilabel"),
        (lambda c: c.update(calibrations=[]), "AttributeError"),
        (lambda c: c.update(diffusion=None), "AttributeError"),
        (lambda c: c.update(parameters=3), "TypeError"),
        (lambda c: c.update(surplus=1), "surplus"),
        (lambda c: c["parameters"].update(backbone="../secret"), "backbone is '../secret'"),
    ],
)
def test_a_damaged_file_of_format_1_is_an_error_that_says_why(new, tmp_path, change, message):
    with pytest.raises(ModelFileError, match=message):
        load(downgrade(new, tmp_path / "old", change), backbone=message[:8] != "backbone")


def test_a_fit_that_goes_on_chooses_regions_as_the_saved_model_does(tmp_path):
    """The named architectures have changed since some models were saved."""
    before = Architecture(region_importance="contrast", region_map="fine")
    parameters = {"backbone": "test_resnet", "pretrained": False, "max_epochs": 1, "num_steps": 3}
    options = {"random_state": 0, "verbose": 0, "device": "cpu", "warm_start": True}
    X, y = stripes(30)
    fitted = DiffMICClassifier(architecture=before, **parameters, **options).fit(X, y)
    fitted.set_params(architecture="default").save_pretrained(tmp_path)
    loaded = load(tmp_path, backbone=False)
    assert loaded.architecture == before
    plan = loaded.model_.plan
    assert loaded.fit(X, y).model_.plan == plan
    # One that was set for the next fit and is of another kind stays.
    fitted.set_params(architecture="zoom").save_pretrained(tmp_path / "next")
    assert load(tmp_path / "next", backbone=False).architecture == "zoom"
