"""Named arrangements."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from diffmic import DiffMICClassifier, list_presets
from diffmic.errors import DiffMICWarning, InputError
from diffmic.estimator.presets import PRESETS, preset_parameters
from diffmic.model import Architecture, resolve_architecture
from diffmic.training import precision, resolve_recipe


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_constructor_parameters_alone(name):
    assert preset_parameters(name).keys() <= inspect.signature(DiffMICClassifier).parameters.keys()


def test_the_default_preset_is_the_default():
    preset, default = DiffMICClassifier.from_preset("default"), DiffMICClassifier()
    assert preset.get_params() == default.get_params()


# Everything on which a model of the papers depends. Where a comment stands, our description of the
# papers has no number or a range.
PAPER_V2 = {
    "backbone": "vit_small_patch16_224",
    "pretrained": True,
    "image_size": 224,
    "augment": "paper",
    "task": "auto",
    "num_steps": 10,
    "n_draws": 1,
    "n_views": 1,
    "max_epochs": 15,  # 10 to 15
    "batch_size": 32,  # of the prior: not stated
    "learning_rate": 1e-3,  # of the prior: not stated
    "class_weight": None,
    "prior_backbone": "resnet18",
    "region_backbone": "resnet18",
    "regions": "windows",  # without effect: there is a region_backbone
    "zoom_size": "auto",
    "region_importance": "paper",
    "region_map": "coarse",
    "crop": "square",
    "n_regions": 6,
    "region_size": 32,
    **dict.fromkeys(("prior", "region_finder", "denoiser")),  # the library's own
    **dict.fromkeys(("prior_loss", "denoiser_loss", "calibration")),
    "feature_dim": 6144,
    "num_train_timesteps": 1000,
    "branch_losses": False,
    "label_smoothing": 0.0,
    "weight_decay": 0.0,
    "schedule": "cosine",
    "head_factor": 1.0,
    "pretrained_factor": 1.0,
    "patience": 1000,
    "cached": False,
    "n_cached_views": 0,
    "alpha": 10.0,
    "gamma": 1.0,
    "context_dropout": 0.0,
    "feature_noise": 0.0,
    "balance": 0.0,
    "grade_weight": 0.0,
    "denoiser_epochs": 1000,  # 1000 to 2000
    "steps_per_epoch": 60,  # without effect: not cached
    "recipe.batch_size": 32,  # of the denoiser: 32 to 64
    "n_positions": 36,
    "denoiser_learning_rate": 1e-3,
    "denoiser_weight_decay": 0.0,
    "stacked": False,
    "ema": None,
    "ema_decay": None,
    "joint": False,
    "half_weights": False,
    "process": "label-map",
    "prediction_type": "noise",
    "guidance": "logits",
    "start": "uniform",
    "timestep_spacing": "leading",
    "sampler": "ddim",
    "readout": "last",
}
PAPER_V1 = PAPER_V2 | {
    "backbone": "resnet18",
    "num_steps": 1000,
    "alpha": 0.0,
    "n_positions": 1,
    "ema_decay": 0.9999,
    "joint": True,
    "process": "drift",
    "guidance": "probabilities",
    "start": "gaussian",
    "timestep_spacing": "trailing",
    "sampler": "ancestral",
}
PAPERS = {
    "paper-v2": PAPER_V2,
    "paper-v2-aptos": PAPER_V2 | {"task": "ordinal", "augment": "paper-fundus"},
    "paper-v2-ham10000": PAPER_V2 | {"task": "multiclass"},
    "paper-v2-chestxray14": PAPER_V2 | {"task": "multilabel", "augment": "paper-chest"},
    "paper-v2-pmg2000": PAPER_V2 | {"task": "multiclass"},
    "paper-v1": PAPER_V1,
    "paper-v1-aptos": PAPER_V1
    | {"task": "ordinal", "augment": "paper-fundus", "num_steps": 60, "timestep_spacing": "last"},
    "paper-v1-isic2018": PAPER_V1
    | {"task": "multiclass", "num_steps": 250, "timestep_spacing": "last"},
}
# Parameters on which no result depends, or that belong to the data and not to the papers.
OTHERS = {
    *("architecture", "recipe", "uncertain", "validation_fraction", "value_range", "on_error"),
    *("class_names", "image_key", "label_key", "warm_start", "precision", "device"),
    *(
        "num_workers",
        "checkpoint_dir",
        "distributed",
        "random_state",
        "callbacks",
        "verbose",
        "time_limit",
    ),
}


def everything(clf):
    """All numbers of an unfitted estimator: its own, and those of architecture and recipe."""
    recipe = resolve_recipe(clf.recipe)
    own = {name: value for name, value in clf.get_params().items() if name not in OTHERS}
    learnt = {("recipe." if n in own else "") + n: v for n, v in vars(recipe).items()}
    diffusion = vars(learnt.pop("diffusion"))
    return own | vars(resolve_architecture(clf.architecture)) | learnt | diffusion


@pytest.mark.parametrize("name", PAPERS)
def test_a_preset_of_a_paper_has_the_papers_numbers_and_no_others(name):
    assert everything(DiffMICClassifier.from_preset(name)) == PAPERS[name]


def test_every_preset_of_a_paper_is_in_the_table():
    assert {name for name in PRESETS if name.startswith("paper")} == PAPERS.keys()


def test_presets_are_listed_with_a_line_each():
    listed = list_presets()
    assert listed.keys() == PRESETS.keys()
    for line in listed.values():
        assert 20 < len(line) <= 100
        assert "\n" not in line
        assert line.endswith(".")


@pytest.mark.parametrize(
    ("name", "y"),
    [
        ("paper-v2-aptos", np.arange(20) % 5),
        ("paper-v2-ham10000", np.arange(21) % 7),
        ("paper-v2-chestxray14", np.eye(15, dtype=int)[np.arange(30) % 15]),
        ("paper-v2-pmg2000", np.arange(20) % 4),
        ("paper-v1-aptos", np.arange(20) % 5),
        ("paper-v1-isic2018", np.arange(21) % 7),
    ],
)
def test_a_preset_of_a_data_set_fits_targets_of_its_kind(name, y):
    tiny = Architecture(
        prior_backbone="test_resnet",
        region_backbone="test_resnet",
        crop="square",
        n_regions=2,
        region_size=16,
        feature_dim=8,
        num_train_timesteps=50,
    )
    recipe = replace(resolve_recipe(DiffMICClassifier.from_preset(name).recipe), denoiser_epochs=1)
    clf = DiffMICClassifier.from_preset(
        name,
        num_steps=3,
        **{"backbone": "test_resnet", "pretrained": False, "architecture": tiny, "recipe": recipe},
        **{"image_size": 64, "max_epochs": 1, "validation_fraction": None, "verbose": 0},
        **{"device": "cpu", "random_state": 0},
    )
    X = np.random.RandomState(0).randint(0, 256, (len(y), 40, 56), np.uint8)
    with pytest.warns(DiffMICWarning, match="not calibrated"):
        proba = clf.fit(X, y).predict_proba(X[:2])
    assert proba.shape == (2, y.shape[1] if y.ndim == 2 else len(set(y)))
    assert np.isfinite(proba).all()
    assert clf.model_.crop == "square"


def test_the_papers_preset_trains_as_long_as_the_paper_and_all_networks():
    clf = DiffMICClassifier.from_preset("paper-v2")
    recipe = resolve_recipe(clf.recipe)
    assert recipe.denoiser_epochs == 1000
    assert clf.max_epochs < recipe.denoiser_epochs  # of the prior alone
    assert recipe.patience >= recipe.denoiser_epochs  # all epochs are run, the best one is kept
    assert not recipe.cached
    assert (recipe.feature_noise, recipe.n_cached_views, recipe.balance) == (0.0, 0, 0.0)
    assert (recipe.denoiser_learning_rate, recipe.batch_size, recipe.alpha) == (1e-3, 32, 10.0)
    assert recipe.diffusion.prediction_type == "noise"
    assert clf.precision == "auto"  # mixed while training, where the hardware supports it


def test_the_papers_encoders_are_mixed_where_the_hardware_supports_it(monkeypatch):
    clf = DiffMICClassifier.from_preset("paper-v2")
    network, cpu = nn.Linear(2, 2), torch.device("cpu")
    for has, name in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(precision, "has_bf16", lambda has=has: has)
        assert precision.training_precision(clf.precision, cpu, network).name == name


def test_what_is_passed_beside_the_name_wins():
    own = Architecture(feature_dim=64)
    clf = DiffMICClassifier.from_preset("paper-v2", architecture=own, random_state=3)
    assert (clf.architecture, clf.random_state, clf.recipe) == (own, 3, "paper-v2")


def test_a_subclass_makes_its_own_kind():
    class Mine(DiffMICClassifier):
        pass

    assert type(Mine.from_preset("default")) is Mine


def test_changing_what_was_returned_leaves_the_preset_alone():
    preset_parameters("paper-v2").clear()
    assert preset_parameters("paper-v2")["architecture"] == "paper-v2"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("paper_v2", "did you mean 'paper-v2'"),
        ("v9", "no preset 'v9'; There are: default, paper-v2"),
        (None, "no preset None; There are"),
        (["paper-v1"], r"no preset \['paper-v1'\]; "),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(name, message):
    with pytest.raises(InputError, match=rf"{message}.*"):
        DiffMICClassifier.from_preset(name)
