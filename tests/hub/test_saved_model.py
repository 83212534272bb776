"""Saved and loaded estimators answer alike."""

import copy
import json
import math
import random
import shutil
import socket
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from numpy.testing import assert_array_equal
from tiny import RECIPE, TinyBackbone, small, stripes
from torchvision.transforms import v2

from diffmic import DiffMICClassifier, InputError, ModelCard, ModelFileError
from diffmic.hub import SavedModel, save_model
from diffmic.model import Architecture, DiffusionSettings
from diffmic.model.backbone import LARGEST_TRIAL, Backbone
from diffmic.training import recipe as recipes
from diffmic.training import resolve_recipe

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
FITTED = (
    *("classes_", "task_", "image_size_", "channels_", "seed_", "calibrations_"),
    *("validation_scores_", "history_", "versions_"),
)


# Code, and what belongs to the machine or to a fit.
UNSAVED = {"backbone", "device", "callbacks", "checkpoint_dir", "distributed", "time_limit"}


def load(folder, **options):
    return DiffMICClassifier.from_pretrained(
        folder, **{"backbone": TinyBackbone(12), "device": "cpu"} | options
    )


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory):
    """A model with a backbone of timm's, fitted with weights that were said to be pretrained."""
    X, y = stripes(30)
    folder = tmp_path_factory.mktemp("models")
    # A coarse map, which has the same channels whatever the size of the images.
    parameters = small(backbone="test_resnet", pretrained=False, max_epochs=1, region_map="coarse")
    DiffMICClassifier(**parameters).fit(X, y).save_pretrained(folder)
    edit(folder, lambda config: config["parameters"].update(pretrained=True))
    return folder


def edit(folder, change):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


LABELS = {
    "integers": lambda y: y * 10 - 3,
    "strings": lambda y: np.array(["quer", "längs", "ohne"])[y],
    "objects": lambda y: np.array(["quer", "längs", "ohne"], dtype=object)[y],
    "booleans": lambda y: y > 0,
    "multi-label": lambda y: (y[:, None] == [0, 1, 2]).astype(int),
}


@pytest.mark.parametrize("labels", LABELS)
def test_a_loaded_model_gives_the_same_answers(images, new_images, labels, tmp_path):
    X, y = images
    parameters = small(backbone=TinyBackbone(12), max_epochs=4)
    classifier = DiffMICClassifier(**parameters).fit(X, LABELS[labels](y))
    classifier.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    for stage in ("prior", "diffusion"):
        assert_array_equal(
            loaded.predict_proba(new_images[0], stage=stage),
            classifier.predict_proba(new_images[0], stage=stage),
        )
        assert_array_equal(
            loaded.predict(new_images[0], stage=stage),
            classifier.predict(new_images[0], stage=stage),
        )
    for name in FITTED:
        expected, found = getattr(classifier, name), getattr(loaded, name)
        assert np.array_equal(expected, found) if name == "classes_" else expected == found, name
    assert loaded.classes_.dtype.kind == np.asarray(classifier.classes_.tolist()).dtype.kind


def test_parameters_come_back(images, tmp_path):
    names = ("across", "up", "plain")
    parameters = small(
        max_epochs=1, class_names=names, precision="fp32", learning_rate=np.float64(1e-3)
    )
    classifier = DiffMICClassifier(**parameters).fit(*images)
    classifier.save_pretrained(tmp_path)
    loaded = load(tmp_path, backbone=TinyBackbone())
    for name in set(classifier.get_params()) - UNSAVED - {"class_names"}:
        assert getattr(loaded, name) == getattr(classifier, name), name
    assert loaded.class_names_ == list(names)
    assert loaded.class_names is None  # names belong to the classes of the model
    assert loaded.device == "cpu"


@pytest.mark.parametrize("name", sorted(set(DiffMICClassifier().get_params()) - UNSAVED))
def test_a_parameter_that_an_older_file_lacks_has_its_default(fitted, new_images, tmp_path, name):
    fitted.save_pretrained(tmp_path)
    edit(tmp_path, lambda config: config["parameters"].pop(name))
    loaded = load(tmp_path, backbone=TinyBackbone())
    assert getattr(loaded, name) == getattr(DiffMICClassifier(), name)
    X = new_images[0]
    options = {name: getattr(fitted, name) for name in ("num_steps", "n_draws", "n_views")}
    assert_array_equal(loaded.predict_proba(X, **options), fitted.predict_proba(X))


def test_a_parameter_that_is_not_known_is_said_to_be_of_a_newer_version(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    edit(tmp_path, lambda config: config["parameters"].update(temperature=1.0, warmth=3))
    with pytest.raises(
        ModelFileError, match=r"parameters \['temperature', 'warmth'\].*newer one: update diffmic"
    ):
        load(tmp_path, backbone=TinyBackbone())


def test_a_recipe_of_ones_own_comes_back(images, new_images, tmp_path):
    settings = DiffusionSettings(prediction_type="label", start="uniform", sampler="dpm-solver++")
    recipe = replace(RECIPE, diffusion=settings, context_dropout=0.2, ema=None)
    classifier = DiffMICClassifier(**small(recipe=recipe)).fit(*images)
    classifier.save_pretrained(tmp_path)
    loaded = load(tmp_path, backbone=TinyBackbone())
    assert loaded.recipe == recipe
    assert_array_equal(loaded.predict_proba(new_images[0]), classifier.predict_proba(new_images[0]))


def test_a_model_whose_diffusion_was_not_trained_comes_back_as_such(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    edit(tmp_path, lambda config: config["calibrations"].pop("diffusion"))
    loaded = load(tmp_path, backbone=TinyBackbone())
    assert loaded.predict_proba(stripes(3)[0], stage="prior").shape == (3, 3)
    with pytest.raises(ValueError, match="diffusion"):
        loaded.predict_proba(stripes(3)[0])


def test_the_files_hold_nothing_that_can_be_executed(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert not content.startswith((b"\x80", b"PK"))  # pickle, and torch.save's zip of one
    json.loads((tmp_path / "config.json").read_text())


def test_a_loaded_model_can_be_saved_again(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "first")
    load(tmp_path / "first", backbone=TinyBackbone()).save_pretrained(tmp_path / "second")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_loading_needs_no_network(timm_folder, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("Something asked for the network.")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    loaded = load(timm_folder, backbone=None)
    assert loaded.pretrained is True
    assert loaded.predict_proba(stripes(3)[0]).shape == (3, 3)


def test_a_size_that_the_configuration_claims_costs_no_memory(timm_folder, tmp_path, monkeypatch):
    shutil.copytree(timm_folder, tmp_path / "model")
    n_regions = load(timm_folder, backbone=None).network_.n_regions
    edit(tmp_path / "model", lambda config: config["preprocessing"].update(image_size=4096))
    edit(
        tmp_path / "model",
        lambda config: config["network"]["architecture"].update(n_regions=n_regions),
    )
    forward, sides = Backbone.forward, {"meta": 0, "cpu": 0}

    def seen(backbone, images):
        device = images.device.type
        sides[device] = max(sides[device], images.shape[-1])
        return forward(backbone, images)

    monkeypatch.setattr(Backbone, "forward", seen)
    assert load(tmp_path / "model", backbone=None).image_size_ == 4096
    assert sides == {"meta": 4096, "cpu": LARGEST_TRIAL}


def test_loading_leaves_the_global_random_state_alone(timm_folder):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    load(timm_folder, backbone=None)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_a_module_must_be_given_again(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    with pytest.raises(ModelFileError, match=r"TinyBackbone.*backbone="):
        load(tmp_path, backbone=None)
    with pytest.raises(ModelFileError, match="shape"):
        load(tmp_path, backbone=TinyBackbone(12))


def test_a_module_that_was_not_asked_for_is_an_error(timm_folder):
    with pytest.raises(ModelFileError, match="test_resnet"):
        load(timm_folder)


def test_the_given_module_is_left_alone(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    backbone = TinyBackbone()
    before = backbone.layers[0].weight.clone()
    load(tmp_path, backbone=backbone)
    assert torch.equal(backbone.layers[0].weight, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(surplus=1), "surplus"),
        (lambda c: c.pop("classes"), "classes"),
        (lambda c: c["parameters"].update(backbones="resnet18"), "backbones"),
        (lambda c: c.pop("network"), "network"),
        (lambda c: c["network"].pop("diffusion"), "diffusion"),
        (lambda c: c["network"].update(layers=3), "layers"),
        (lambda c: c["network"]["architecture"].update(depth=3), "depth"),
        (lambda c: c["network"]["diffusion"].update(sampler="euler"), "sampler is 'euler'"),
        (lambda c: c["sampling"].update(n_draws=0), "n_draws is 0"),
        (lambda c: c.update(drawing_ratio=[1.0]), r"drawing_ratio is \[1\.0\]"),
        (lambda c: c.update(drawing_ratio=[1.0, 0.0, 2.0]), "drawing_ratio"),
        (lambda c: c["parameters"].update(recipe="unknown"), "unknown"),
        (lambda c: c.update(shares=[0.5, 0.5]), r"shares is \[0\.5, 0\.5\], not the share of each"),
        (lambda c: c.update(shares=[0.5, 0.6, 0.1]), "shares is"),
        (lambda c: c.update(shares=[2.0, -1.0, 0.0]), "shares is"),
        (lambda c: c.update(shares="even"), "shares is"),
        (lambda c: c.update(aim={"name": "auc"}), "aim is 'auc'"),
        (lambda c: c.update(aim={"name": "rates", "sensitivity": 7}), "sensitivity is 7"),
        (lambda c: c.update(aim={"goal": 1}), "goal"),
        (lambda c: c.update(recalibration={"n_images": 3}), "recalibration is"),
        (
            lambda c: c.update(
                recalibration={
                    "n_images": 3,
                    "n_positive": [1, 1, 1],
                    "nll_before": {"prior": 1.0, "diffusion": 1.0},
                    "nll_after": {"prior": "1", "diffusion": 1.0},
                }
            ),
            "recalibration is",
        ),
        (lambda c: c["calibrations"]["prior"].update(offsets=[0.1]), "offsets are"),
        (lambda c: c["calibrations"]["prior"].update(offsets=["a", "b", "c"]), "offsets are"),
        (lambda c: c["calibrations"]["prior"].update(offsets=3), "offsets are"),
        (lambda c: c.update(thresholds={"prior": [0.5], "diffusion": [0.5]}), "thresholds are of"),
        (lambda c: c["parameters"]["recipe"].update(steps=3), "steps"),
        (
            lambda c: c["network"]["architecture"].update(num_train_timesteps=0),
            "num_train_timesteps is 0",
        ),
        (
            lambda c: c["parameters"]["architecture"].update(feature_dim="wide"),
            "feature_dim is 'wide'",
        ),
        (lambda c: c.update(parameters=[]), "parameters"),
        (lambda c: c["calibrations"]["prior"].update(stage="prior"), "stage"),
        (lambda c: c["calibrations"].pop("prior"), r"calibrations are of \['diffusion'\]"),
        (lambda c: c["classes"].append(3), "drawing_ratio"),
        (lambda c: (c["classes"].append(3), c.update(drawing_ratio=None)), "shares"),
        (
            lambda c: (c["classes"].append(3), c.update(drawing_ratio=None, shares=None)),
            "shape",
        ),
        (lambda c: c["network"]["architecture"].update(feature_dim=10**9), "shape"),
        (lambda c: c["network"]["architecture"].update(num_train_timesteps=10**7), "shape"),
        (lambda c: c["network"]["architecture"].update(num_train_timesteps=10**12), "overflow"),
        (lambda c: c["preprocessing"].update(image_size=10**6), "image_size is 1000000"),
        (lambda c: c["preprocessing"].update(image_size="32"), "image_size"),
        (lambda c: c["preprocessing"].pop("mean"), "mean"),
        (lambda c: c["preprocessing"].update(mean=[0.1, 0.2, 0.3]), "learnt with"),
        (lambda c: c["preprocessing"].update(channels="x"), "channels is 'x'"),
        (lambda c: c["preprocessing"].update(image_size=True), "image_size is True"),
        (lambda c: c["card"].update(author="me"), "author"),
        (lambda c: c["card"].update(test_scores=3), "int"),
        (lambda c: c["card"].update(n_test="x"), "n_test of the card is 'x'"),
        (lambda c: c["card"].update(license=["x"]), r"license of the card is \['x'\]"),
        (lambda c: c["card"].update(split=5), "split of the card is 5"),
        (lambda c: c.update(classes=[0, 0, 1]), "classes is"),
        (lambda c: c.update(classes="abc"), "classes is abc"),
        (lambda c: c.update(classes=[None, 1, 2]), "classes is"),
        (lambda c: c.update(task="regression"), "task is 'regression', not one of"),
        (lambda c: c.update(task=["multiclass"]), "TypeError"),
        (lambda c: c.update(task="multilabel"), "thresholds are of"),
        (lambda c: c.update(thresholds={"prior": [0.5] * 3}), "thresholds"),
        (lambda c: c.update(seed=None), "seed is None"),
        (lambda c: c.update(seed=10**40), "seed is"),
        (lambda c: c["parameters"].update(class_names=["a"]), "class_names"),
        (lambda c: c["parameters"]["recipe"].update(context_dropout=5), "dropout"),
        (lambda c: c["calibrations"]["prior"].update(temperature=0), "is no calibration"),
        (lambda c: c["calibrations"]["prior"].update(temperature="x"), "is no calibration"),
        (lambda c: c["calibrations"]["prior"].update(shift=10**400), "is no calibration"),
        (lambda c: c.update(thresholds="x"), "thresholds is x"),
        (lambda c: c.update(drawing_ratio=[10**400, 1, 1]), "drawing_ratio is"),
        (lambda c: c["parameters"].update(task=[]), r"task is \[\]"),
        (lambda c: c["parameters"].update(precision={}), r"precision is \{\}"),
        (lambda c: c["calibrations"].update(alone={}), "calibrations are of"),
        (lambda c: c.update(validation_scores={"diffusion": {"nll": 0.5}}), "validation_scores"),
        (lambda c: c.update(validation_scores={"prior": {"nll": "low"}}), "validation_scores"),
        (lambda c: c.update(history=None), "history"),
        (lambda c: c.update(versions={"torch": 2}), "versions"),
        (lambda c: c.update(weights_sha256="0" * 64), "checksum"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_an_error_that_says_why(
    fitted, tmp_path, change, message
):
    fitted.save_pretrained(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(ModelFileError, match=message):
        load(tmp_path, backbone=TinyBackbone())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backbone", "../../secret"),
        ("backbone", "local-dir:/etc"),
        ("backbone", "hf-hub:org/model"),
        ("prior_backbone", "hf_hub:org/model"),
        ("region_backbone", "/etc/passwd"),
        ("pretrained", "/etc/passwd"),
    ],
)
def test_a_configuration_leads_to_no_other_file_and_no_network(timm_folder, tmp_path, name, value):
    shutil.copytree(timm_folder, tmp_path / "model")
    place = {"backbone": ("network",), "pretrained": ("parameters",)}.get(
        name, ("network", "architecture")
    )

    def change(config):
        for key in place:
            config = config[key]
        config[name] = value

    edit(tmp_path / "model", change)
    with pytest.raises(ModelFileError, match=name):
        load(tmp_path / "model", backbone=None)


def test_a_backbone_from_the_hub_is_saved_by_timms_own_name(timm_folder, tmp_path, new_images):
    loaded = load(timm_folder, backbone=None)
    name = "hf-hub:timm/test_resnet.r160_in1k"
    loaded.model_ = replace(loaded.model_, plan=replace(loaded.model_.plan, backbone=name))
    loaded.set_params(backbone=name).save_pretrained(tmp_path)
    assert load(tmp_path, backbone=None).backbone == "test_resnet"


def test_the_configuration_tells_how_images_are_prepared(timm_folder):
    found = json.loads((timm_folder / "config.json").read_text())["preprocessing"]
    statistics = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}  # timm's for this network
    assert found == {"image_size": 32, "channels": 1} | statistics


@pytest.mark.parametrize("rounded", [True, False])
def test_half_precision_changes_nothing_where_the_recipe_rounds_and_else_little(
    rounded, tmp_path, new_images
):
    recipe = replace(RECIPE, half_weights=rounded)
    parameters = small(backbone="test_resnet", pretrained=False, max_epochs=1, recipe=recipe)
    whole = DiffMICClassifier(**parameters).fit(*stripes(30))
    whole.save_pretrained(tmp_path, dtype="float16")
    half = load(tmp_path, backbone=None)
    for stage in ("prior", "diffusion"):
        difference = half.predict_proba(new_images[0], stage=stage) - whole.predict_proba(
            new_images[0], stage=stage
        )
        assert abs(difference).max() < 0.02
        assert (difference == 0).all() == rounded


def test_half_precision_leaves_alone_what_images_are_normalised_with(tmp_path, images):
    backbone = "resnet10t"  # its mean, 0.485, is no number of half precision
    recipe = replace(RECIPE, half_weights=False)
    parameters = small(backbone=backbone, pretrained=False, max_epochs=1, recipe=recipe)
    whole = DiffMICClassifier(**parameters).fit(images[0][:12], images[1][:12])
    whole.save_pretrained(tmp_path, dtype="float16")
    assert load(tmp_path, backbone=None).network_.prior.backbone.mean[0].item() == (
        pytest.approx(0.485, abs=1e-6)
    )


def test_saving_needs_a_fitted_estimator(tmp_path):
    with pytest.raises(ValueError, match="not fitted"):
        DiffMICClassifier().save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_module_with_shared_parts_is_saved(images, new_images, tmp_path):
    backbone = TinyBackbone()
    backbone.again = backbone.layers
    classifier = DiffMICClassifier(**small(backbone=backbone, max_epochs=1)).fit(*images)
    classifier.save_pretrained(tmp_path)
    given = TinyBackbone()
    given.again = given.layers
    loaded = load(tmp_path, backbone=given)
    assert_array_equal(loaded.predict_proba(new_images[0]), classifier.predict_proba(new_images[0]))


def test_versions_are_those_of_the_fit(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "one")
    edit(tmp_path / "one", lambda config: config["versions"].update(torch="1.0.0"))
    load(tmp_path / "one", backbone=TinyBackbone()).save_pretrained(tmp_path / "two")
    assert "torch 1.0.0" in (tmp_path / "two" / "README.md").read_text()


def test_a_card_is_not_taken_from_a_save_that_failed(fitted, tmp_path):
    classifier = copy.deepcopy(fitted)
    with pytest.raises(InputError, match="dtype"):
        classifier.save_pretrained(tmp_path, dtype="int8", card=ModelCard(summary="No."))
    assert classifier.card_ == fitted.card_


def test_a_model_that_could_not_be_loaded_is_not_saved(images, tmp_path):
    recipe = replace(RECIPE, cached=False, n_cached_views=0)
    parameters = small(prior_backbone=TinyBackbone(), recipe=recipe, max_epochs=1)
    classifier = DiffMICClassifier(**parameters).fit(*images)
    with pytest.raises(InputError, match=r"prior_backbone is a module of your own.*timm name"):
        classifier.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_papers_arrangement_is_saved_by_the_names_of_its_networks(images, new_images, tmp_path):
    classifier = DiffMICClassifier(
        **small(
            backbone="test_vit",
            prior_backbone="test_resnet",
            region_backbone="test_resnet",
            pretrained=False,
            recipe=replace(resolve_recipe("paper-v2"), denoiser_epochs=1),
            image_size=160,
            region_size=32,
            max_epochs=1,
        )
    ).fit(images[0][:20], images[1][:20])
    classifier.save_pretrained(tmp_path)
    X = new_images[0][:5]
    assert_array_equal(load(tmp_path, backbone=None).predict_proba(X), classifier.predict_proba(X))


def test_a_model_keeps_its_settings_whatever_its_recipe_comes_to_mean(
    timm_folder, monkeypatch, new_images
):
    loaded = load(timm_folder, backbone=None)
    changed = replace(
        recipes.RECIPES["default"],
        diffusion=replace(loaded.network_.settings, prediction_type="noise"),
    )
    monkeypatch.setitem(recipes.RECIPES, "default", changed)
    again = load(timm_folder, backbone=None)
    assert again.network_.settings == loaded.network_.settings


def test_metrics_that_are_not_numbers_survive_as_valid_json(fitted, tmp_path):
    classifier = copy.deepcopy(fitted)
    classifier.validation_scores_["prior"]["auc"] = math.nan
    classifier.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["validation_scores"]["prior"]["auc"] is None
    assert math.isnan(load(tmp_path, backbone=TinyBackbone()).validation_scores_["prior"]["auc"])


def test_an_architecture_set_after_the_fit_is_that_of_the_next_fit_alone(
    fitted, new_images, tmp_path
):
    other = Architecture(feature_dim=64, num_train_timesteps=50)
    changed = copy.deepcopy(fitted).set_params(architecture=other)
    changed.save_pretrained(tmp_path)
    loaded = load(tmp_path, backbone=TinyBackbone())
    assert loaded.architecture == other
    assert loaded.model_.plan == replace(fitted.model_.plan, backbone=loaded.backbone)
    assert_array_equal(loaded.predict_proba(new_images[0]), fitted.predict_proba(new_images[0]))


def test_what_training_needs_is_saved_where_json_can_hold_it(fitted, tmp_path):
    told = {"augment": None, "class_weight": "balanced", "random_state": 3}
    copy.deepcopy(fitted).set_params(**told).save_pretrained(tmp_path / "plain")
    loaded = load(tmp_path / "plain", backbone=TinyBackbone())
    assert {name: getattr(loaded, name) for name in told} == told
    others = {"augment": v2.RandomHorizontalFlip(), "class_weight": {0: 2.0}}
    copy.deepcopy(fitted).set_params(**others).save_pretrained(tmp_path / "other")
    loaded = load(tmp_path / "other", backbone=TinyBackbone())
    assert (loaded.augment, loaded.class_weight) == ("auto", None)


def test_names_of_any_kind_of_sequence_are_saved_as_a_list(fitted, tmp_path):
    names = pandas.Index(["a", "b", "c"])
    copy.deepcopy(fitted).set_params(class_names=names).save_pretrained(tmp_path)
    assert load(tmp_path, backbone=TinyBackbone()).class_names_ == ["a", "b", "c"]


def test_a_model_is_not_saved_into_a_file(fitted, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"No folder can be made at .*file"):
        fitted.save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("path", [None, "", 3])
def test_a_model_is_not_saved_where_no_folder_is_named(fitted, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    saved = SavedModel(fitted.model_, fitted.get_params(deep=False), fitted.card_)
    with pytest.raises(InputError, match=f"path is {path!r}; give the folder"):
        save_model(path, saved)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [None, 3])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(InputError, match="give the folder of a saved model, or its name"):
        DiffMICClassifier.from_pretrained(path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("network", "architecture"), "region_size"),
        (("network", "diffusion"), "readout"),
        (("sampling",), "n_views"),
        (("card",), "base_model"),
        (("calibrations", "diffusion"), "shift"),
        (("parameters",), "task"),
        ((), "shares"),
        ((), "aim"),
        ((), "recalibration"),
    ],
    ids=lambda value: value if isinstance(value, str) else ".".join(value) or "top",
)
def test_what_an_older_file_does_not_have_is_at_its_default(timm_folder, tmp_path, path, name):
    shutil.copytree(timm_folder, tmp_path / "model")

    def without(config):
        for part in path:
            config = config[part]
        del config[name]

    edit(tmp_path / "model", without)
    loaded = load(tmp_path / "model", backbone=None)
    expected = load(timm_folder, backbone=None)
    assert np.allclose(loaded.predict_proba(stripes(3)[0]), expected.predict_proba(stripes(3)[0]))
