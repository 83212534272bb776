"""Evaluation reports: intervals, single classes, tables."""

import math
import sys

import numpy as np
import pytest

from diffmic import InputError
from diffmic.inference import EvaluationReport
from diffmic.tasks import MULTICLASS, MULTILABEL, ORDINAL, classification_metrics

CLASSES = np.array(["a", "b", "c"])


def report(n=60, *, seed=0, task=MULTICLASS, groups=None, n_bootstrap=100, unknown=0.0):
    """Three stages, of which the diffusion is the sharpest."""
    rng = np.random.RandomState(seed)
    number = rng.randint(3, size=n)
    truth = np.eye(3)[number]
    noise = rng.normal(size=(n, 3))
    proba = {}
    for stage, sharpness in {"prior": 1, "diffusion": 3, "diffusion_alone": 2}.items():
        logits = sharpness * (truth - 0.5) + noise
        odds = np.exp(logits)
        if task is MULTILABEL:
            proba[stage] = odds / (1 + odds)
        else:
            proba[stage] = odds / odds.sum(axis=1, keepdims=True)
    multilabel = task is MULTILABEL
    if multilabel:
        truth[rng.rand(n, 3) < unknown] = np.nan
    return EvaluationReport(
        truth=truth if multilabel else CLASSES[number],
        proba=proba,
        thresholds=dict.fromkeys(proba, np.full(3, 0.4)) if multilabel else {},
        classes=np.arange(3) if multilabel else CLASSES,
        class_names=("one", "two", "thr|ee"),
        task=task,
        groups=groups,
        n_bootstrap=n_bootstrap,
    )


def replaced(found, **fields):
    """A report with other fields, and nothing of what it has computed."""
    own = {name: getattr(found, name) for name in EvaluationReport.__dataclass_fields__}
    return EvaluationReport(**own | fields)


@pytest.mark.parametrize("task", [MULTICLASS, ORDINAL, MULTILABEL])
def test_metrics_are_those_of_the_probabilities(task):
    found = report(task=task, unknown=0.2)
    assert list(found) == ["prior", "diffusion", "diffusion_alone"]
    for stage, proba in found.proba.items():
        expected = classification_metrics(
            found.truth, proba, classes=CLASSES, ordered=task is ORDINAL, thresholds=0.4
        )
        assert found[stage] == pytest.approx(expected)
        for metric, value in expected.items():
            measured = found.measured(stage, metric)
            assert measured.value == pytest.approx(value)
            assert measured.low <= measured.high
    assert found["diffusion"]["auc"] > found["prior"]["auc"]


@pytest.mark.parametrize("metric", ["accuracy", "brier"])
def test_intervals_cover_the_truth_about_as_often_as_they_say(metric):
    many = report(20_000, n_bootstrap=0)["prior"][metric]
    few = [report(80, seed=s, n_bootstrap=60) for s in range(1, 26)]
    found = [replaced(of, proba={"prior": of.proba["prior"]}) for of in few]
    intervals = [of.measured("prior", metric) for of in found]
    assert np.mean([low <= many <= high for _, low, high in intervals]) >= 0.8


def test_intervals_of_groups_are_wider_where_images_of_a_group_are_alike():
    n, copies = 30, 8
    one = report(n)
    groups = np.repeat(np.arange(n), copies)
    proba = {stage: p[groups] for stage, p in one.proba.items()}
    copied = replaced(one, truth=one.truth[groups], proba=proba)
    grouped = replaced(copied, groups=groups)

    def width(of):
        found = of.measured("prior", "accuracy")
        return found.high - found.low

    assert width(grouped) == width(one)  # copies tell nothing new
    assert width(copied) < 0.6 * width(one)
    assert "resamples of the 30 groups of images" in grouped.to_markdown()


def test_differences_are_paired():
    found = report(60)
    difference = found.difference("nll")
    assert difference.value == pytest.approx(found["diffusion"]["nll"] - found["prior"]["nll"])
    own = found.measured("prior", "nll")
    assert difference.high < 0
    assert difference.high - difference.low < own.high - own.low
    same = found.difference("nll", "prior", "prior")
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_single_classes_are_measured():
    found = report(60)
    label, predicted = "b", CLASSES[found.proba["prior"].argmax(axis=1)]
    of_class = found.measured("prior", "sensitivity", label)
    assert of_class.value == (predicted == "b")[found.truth == "b"].mean()
    assert of_class.low < of_class.value < of_class.high
    assert found.difference("auc", label=label).value > 0


def test_a_class_that_does_not_occur_is_left_open():
    found = report(60)
    found = replaced(
        found,
        classes=np.array(["a", "b", "c", "z"]),
        class_names=(*found.class_names, "four"),
        proba={s: np.pad(p, ((0, 0), (0, 1))) for s, p in found.proba.items()},
        n_bootstrap=10,
    )
    assert math.isnan(found.measured("prior", "sensitivity", "z").value)
    assert "| four | 0 | – |" in found.to_markdown()


def test_without_resamples_there_are_no_intervals():
    found = report(n_bootstrap=0)
    assert math.isnan(found.measured("prior", "auc").low)
    assert "(" not in found.to_markdown()


def test_tables_hold_every_stage_metric_and_class():
    found = report(n_bootstrap=20)
    frame = found.to_frame()
    assert len(frame) == 3 * (len(found["prior"]) + 3 * 5)
    row = frame[(frame["stage"] == "diffusion") & (frame["metric"] == "brier")].iloc[0]
    assert (row["value"], row["low"], row["high"]) == found.measured("diffusion", "brier")
    text = found.to_markdown()
    assert "| | prior | diffusion | diffusion alone |" in text.replace("|  |", "| |")
    assert "| thr/ee |" in text
    assert str(found.measured("diffusion", "auc", "c")) in text
    assert found.to_markdown() == text


def test_to_frame_says_that_pandas_is_missing(monkeypatch):
    found = report(n_bootstrap=0)
    assert len(found.rows()) == len(found.to_frame())
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        found.to_frame()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("posterior", "auc"), "posterior"),
        (("prior", "sensitivity"), "sensitivity"),
        (("prior", "auc", "d"), "'d'"),
        (("prior", "kappa", "a"), "kappa"),
    ],
)
def test_what_there_is_not_is_told(arguments, told):
    with pytest.raises(InputError, match=told):
        report(n_bootstrap=0).measured(*arguments)
