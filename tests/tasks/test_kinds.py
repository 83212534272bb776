"""Kinds of tasks: probabilities, losses, decisions and metrics of each."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from diffmic import InputError
from diffmic.tasks import MULTICLASS, MULTILABEL, ORDINAL, TASKS, task_named

LOGITS = torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(3, (6, 5), generator=torch.Generator().manual_seed(1))
ONEHOT = F.one_hot(LABELS, 3).float()
INDICATOR = (torch.rand(6, 5, 3, generator=torch.Generator().manual_seed(2)) < 0.5).float()


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_logits_of_probabilities_are_an_inverse(task):
    proba = task.probabilities(LOGITS)
    assert_close(task.probabilities(task.logits(proba)), proba)
    assert_close(proba, LOGITS.softmax(-1) if task.exclusive else LOGITS.sigmoid())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_are_torchs_cross_entropies(smoothing):
    found = MULTICLASS.loss(LOGITS, ONEHOT, label_smoothing=smoothing)
    expected = F.cross_entropy(
        LOGITS.flatten(0, 1), LABELS.flatten(), label_smoothing=smoothing, reduction="none"
    )
    assert_close(found.flatten(), expected)
    found = MULTILABEL.loss(LOGITS, INDICATOR, label_smoothing=smoothing)
    smooth = INDICATOR * (1 - smoothing) + smoothing / 2
    expected = F.binary_cross_entropy_with_logits(LOGITS, smooth, reduction="none").mean(-1)
    assert_close(found, expected)


@pytest.mark.parametrize("task", [MULTICLASS, MULTILABEL])
def test_one_target_serves_every_position(task):
    targets = (ONEHOT if task.exclusive else INDICATOR)[:, :1]
    assert_close(task.loss(LOGITS, targets), task.loss(LOGITS, targets.expand_as(LOGITS)))


def test_confidence_is_the_probability_of_the_truth():
    proba = LOGITS.softmax(-1)
    assert_close(MULTICLASS.confidence(LOGITS, ONEHOT), proba.gather(-1, LABELS[..., None])[..., 0])
    sigmoid = LOGITS.sigmoid()
    expected = torch.where(INDICATOR == 1, sigmoid, 1 - sigmoid).mean(-1)
    assert_close(MULTILABEL.confidence(LOGITS, INDICATOR), expected)


def test_a_multilabel_decision_is_right_when_every_label_is():
    logits = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    found = MULTILABEL.correct(logits, torch.tensor([[1, 0], [1, 0]]))
    assert found.tolist() == [True, False]
    assert MULTICLASS.correct(logits[:1], torch.tensor([[1, 0]])).tolist() == [True]


def test_decisions_are_classes_or_an_indicator():
    proba = np.array([[0.2, 0.8], [0.6, 0.4]])
    classes = np.array(["cat", "dog"])
    assert MULTICLASS.decide(proba, classes).tolist() == ["dog", "cat"]
    assert MULTILABEL.decide(proba, classes).tolist() == [[0, 1], [1, 0]]
    assert MULTILABEL.decide(proba, classes, [0.1, 0.9]).tolist() == [[1, 0], [1, 0]]


def test_grades_have_a_kappa():
    proba, classes = np.eye(3)[[0, 1, 2, 1]], np.arange(3)
    truth = np.array([0, 1, 2, 2])
    assert "kappa" in ORDINAL.metrics(truth, proba, classes)
    assert "kappa" not in MULTICLASS.metrics(truth, proba, classes)


def test_a_task_is_one_object_wherever_it_comes_from():
    for name, task in TASKS.items():
        assert task_named(name) is copy.deepcopy(task) is pickle.loads(pickle.dumps(task)) is task
    with pytest.raises(InputError, match="'multiclass', 'multilabel', 'ordinal'"):
        task_named("regression")
