"""The validation part: measured after each epoch, calibrated on at the end."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import RECIPE, TinyBackbone, small, stripes

from diffmic import DiffMICClassifier
from diffmic.data import PreparedImages, named_augment
from diffmic.inference import measure
from diffmic.training import Part, TrainingOptions
from diffmic.training.evaluation import Evaluation

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
OPTIONS = TrainingOptions(
    recipe=RECIPE,
    image_size=32,
    max_epochs=1,
    batch_size=16,
    learning_rate=1e-2,
    pretrained=False,
    patience=None,
    augment=None,
    num_workers=0,
    num_steps=3,
    n_samples=2,
    n_views=1,
    precision="fp32",
    device=torch.device("cpu"),
    seed=0,
    verbose=0,
)


def part(*, multilabel=False):
    X, y = stripes(30, seed=1)
    y = np.where(np.random.RandomState(1).rand(30) < 0.2, (y + 1) % 3, y)
    targets = torch.nn.functional.one_hot(torch.from_numpy(y), 3).float()
    targets = targets[:, :2] if multilabel else targets
    return Part(torch.from_numpy(X)[:, None], targets, torch.ones(30))


@pytest.fixture
def encodings(fitted):
    """Counts how often the backbone of the fitted model is run."""
    calls = []
    hook = fitted.network_.prior.backbone.register_forward_hook(lambda *_: calls.append(1))
    yield calls
    hook.remove()


def test_stage_two_encodes_the_validation_part_once(fitted, encodings):
    evaluation = Evaluation(part(), OPTIONS)
    for _ in range(3):
        evaluation.diffusion(fitted.network_)
    assert len(encodings) == 2  # of 30 images in batches of 16


def test_stage_one_encodes_it_after_each_epoch(fitted, encodings):
    evaluation = Evaluation(part(), OPTIONS)
    for _ in range(3):
        evaluation.prior(fitted.network_)
    assert len(encodings) == 6


def test_encoders_that_learn_in_stage_two_encode_anew(images):
    classifier = DiffMICClassifier(**small(prior_backbone=TinyBackbone(), max_epochs=1))
    network = classifier.fit(*images).network_
    calls = []
    network.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    evaluation = Evaluation(part(), OPTIONS)
    evaluation.diffusion(network)
    evaluation.diffusion(network)
    assert len(calls) == 4


@pytest.mark.parametrize("stage", ["prior", "diffusion"])
def test_the_score_is_the_likelihood_under_the_best_temperature(fitted, stage):
    evaluation = Evaluation(part(), OPTIONS)
    measures = getattr(evaluation, stage)(fitted.network_)
    verdict = evaluation.verdicts(fitted.network_, [stage])[stage]
    assert measures["score"] == -measures["nll"]
    assert measures["nll"] == pytest.approx(verdict.measures["nll"], abs=1e-6)
    assert measures["accuracy"] == pytest.approx(verdict.measures["accuracy"])


@pytest.mark.parametrize("n_views", [1, 3])
@pytest.mark.parametrize("stage", ["prior", "diffusion"])
def test_a_verdict_agrees_with_what_is_predicted(fitted, stage, n_views):
    validation = part()
    options = replace(OPTIONS, n_views=n_views, augment=named_augment("auto"), seed=fitted.seed_)
    verdict = Evaluation(validation, options).verdicts(fitted.network_, [stage])[stage]
    calibrated = copy.copy(fitted).set_params(augment="auto", n_views=n_views)
    calibrated.calibrations_ = {stage: verdict.calibration}
    proba = calibrated.predict_proba(validation.images, stage=stage)
    expected = measure(validation.targets.argmax(dim=1), proba)
    assert verdict.measures["nll"] == pytest.approx(expected["nll"], abs=1e-4)
    assert verdict.measures["auc"] == pytest.approx(expected["auc"])
    assert verdict.thresholds is None


def test_verdicts_encode_anew_and_once_for_both_stages(fitted, encodings):
    evaluation = Evaluation(part(), OPTIONS)
    evaluation.diffusion(fitted.network_)
    encodings.clear()
    verdicts = evaluation.verdicts(fitted.network_, ["prior", "diffusion"])
    assert verdicts.keys() == {"prior", "diffusion"}
    assert len(encodings) == 2


@pytest.mark.parametrize("stage", ["prior", "diffusion"])
def test_labels_get_thresholds(fitted_multilabel, stage):
    verdict = Evaluation(part(multilabel=True), OPTIONS).verdicts(
        fitted_multilabel.network_, [stage]
    )[stage]
    assert verdict.thresholds.shape == (2,)
    assert verdict.calibration.multilabel
    assert verdict.measures["accuracy"] > 0.7


def test_evaluating_leaves_the_network_in_the_mode_that_it_was_in(fitted):
    evaluation = Evaluation(part(), OPTIONS)
    network = fitted.network_
    for mode in (True, False):
        network.train(mode)
        evaluation.prior(network)
        evaluation.diffusion(network)
        assert network.training == mode


def test_the_validation_part_is_not_augmented(fitted):
    def refuse(image):
        raise AssertionError

    options = TrainingOptions(**{**vars(OPTIONS), "augment": refuse})
    Evaluation(part(), options).prior(fitted.network_)
    assert isinstance(part().prepared(options, augmented=True), PreparedImages)
    with pytest.raises(AssertionError):
        part().prepared(options, augmented=True)[0]
