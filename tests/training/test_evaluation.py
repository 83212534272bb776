"""The validation part: metrics after each epoch; in the end calibration, cross-fitted metrics."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import RECIPE, TRAINING, TinyBackbone, small, stripes

from diffmic import DiffMICClassifier
from diffmic.data import LabelledImages, PreparedImages, named_augment
from diffmic.inference import Calibration, SamplingOptions
from diffmic.tasks import classification_metrics
from diffmic.training.evaluation import Evaluation

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
OPTIONS = replace(TRAINING, max_epochs=1)


def part(*, multilabel=False):
    X, y = stripes(30, seed=1)
    y = np.where(np.random.RandomState(1).rand(30) < 0.2, (y + 1) % 3, y)
    targets = torch.nn.functional.one_hot(torch.from_numpy(y), 3).float()
    targets = targets[:, :2] if multilabel else targets
    return LabelledImages(torch.from_numpy(X)[:, None], targets, torch.ones(30))


def ratio_of(model):
    return None if model.drawing_ratio is None else torch.from_numpy(model.drawing_ratio)


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
    recipe = replace(RECIPE, cached=False, n_cached_views=0)
    classifier = DiffMICClassifier(
        **small(prior_backbone=TinyBackbone(), recipe=recipe, max_epochs=1)
    )
    network = classifier.fit(*images).network_
    calls = []
    network.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    evaluation = Evaluation(part(), OPTIONS)
    evaluation.diffusion(network)
    evaluation.diffusion(network)
    assert len(calls) == 4


@pytest.mark.parametrize("stage", ["prior", "diffusion"])
def test_the_score_is_the_likelihood_under_the_calibration_that_suits_best(fitted, stage):
    evaluation = Evaluation(part(), OPTIONS, ratio_of(fitted.model_))
    metrics = getattr(evaluation, stage)(fitted.network_)
    verdict = evaluation.verdict(fitted.network_, ["prior", "diffusion"])
    best = replace(fitted.model_, calibrations=verdict.calibrations)
    images = PreparedImages(evaluation.part.images, best.image_size)
    proba = best.probabilities(best.evidence(images), stage)
    expected = classification_metrics(evaluation.part.targets.argmax(dim=1).numpy(), proba)
    assert metrics["score"] == -metrics["nll"]
    assert metrics["nll"] == pytest.approx(expected["nll"], abs=1e-6)
    assert metrics["accuracy"] == pytest.approx(expected["accuracy"])


@pytest.mark.parametrize("n_views", [1, 3])
def test_a_verdict_is_of_what_is_predicted(fitted, n_views):
    """Its calibrations are those that suit the model's own evidence, for as many views."""
    validation, model = part(), fitted.model_
    sampling = SamplingOptions(num_steps=3, n_draws=2, n_views=n_views)
    augment = named_augment("auto")
    options = replace(OPTIONS, sampling=sampling, augment=augment, seed=model.seed)
    verdict = Evaluation(validation, options, ratio_of(model)).verdict(
        model.network, ["prior", "diffusion"]
    )
    images = PreparedImages(validation.images, model.image_size)
    evidence = model.evidence(images, "diffusion", sampling, augment=augment)
    for stage in ("prior", "diffusion"):
        expected = Calibration.fit(
            evidence.logits(stage, model.task),
            validation.targets,
            model.task,
            prior_logits=evidence.prior_logits if stage == "diffusion" else None,
        )
        found = verdict.calibrations[stage]
        assert found.to_dict() == pytest.approx(expected.to_dict(), abs=1e-3, rel=1e-3)
    assert verdict.thresholds == {}


def test_a_verdict_encodes_anew_and_once_for_both_stages(fitted, encodings):
    evaluation = Evaluation(part(), OPTIONS)
    evaluation.diffusion(fitted.network_)
    encodings.clear()
    verdict = evaluation.verdict(fitted.network_, ["prior", "diffusion"])
    assert verdict.calibrations.keys() == {"prior", "diffusion"}
    assert verdict.scores.keys() == {"prior", "diffusion", "diffusion_alone"}
    assert len(encodings) == 2


def test_a_verdict_of_the_prior_alone_says_nothing_of_the_diffusion(fitted):
    verdict = Evaluation(part(), OPTIONS).verdict(fitted.network_, ["prior"])
    assert verdict.calibrations.keys() == verdict.scores.keys() == {"prior"}
    assert verdict.gain is None


def test_labels_get_thresholds(fitted_multilabel):
    verdict = Evaluation(part(multilabel=True), OPTIONS).verdict(
        fitted_multilabel.network_, ["prior", "diffusion"]
    )
    for stage in ("prior", "diffusion"):
        assert verdict.thresholds[stage].shape == (2,)
        assert verdict.calibrations[stage].shift != 0
        assert verdict.scores[stage]["auc"] > 0.6


def test_evaluating_is_the_same_in_whatever_mode_the_network_was(fitted):
    evaluation = Evaluation(part(), OPTIONS)
    network = copy.deepcopy(fitted.network_)
    found = []
    for mode in (True, False):
        network.train(mode)
        found.append((evaluation.prior(network), evaluation.diffusion(network)))
    assert found[0] == found[1]


def test_the_validation_part_is_not_augmented(fitted):
    def refuse(image):
        raise AssertionError

    options = replace(OPTIONS, augment=refuse)
    Evaluation(part(), options).prior(fitted.network_)
    assert isinstance(options.prepared(part(), augmented=True), PreparedImages)
    with pytest.raises(AssertionError):
        options.prepared(part(), augmented=True)[0]
