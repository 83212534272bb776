"""Figures of predictions whose labels are known, of a fit, and of a label map."""

import matplotlib
import numpy as np
import pytest
from scipy.stats import binomtest

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from tiny import small, stripes
from torch.utils.data import DataLoader

from diffmic import DiffMICClassifier, InputError
from diffmic.plots import (
    ConfusionDisplay,
    DenoisingDisplay,
    HistoryDisplay,
    ReliabilityDisplay,
    RiskCoverageDisplay,
)
from diffmic.plots.displays import wilson_interval

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fitted():
    X, y = stripes(60)
    names = ["horizontal", "vertical", "none"]
    return DiffMICClassifier(**small(max_epochs=2, class_names=names)).fit(X, y), X, y


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (3, 7), (40, 41), (9, 9)])
def test_intervals_are_those_of_wilson(successes, trials):
    found = wilson_interval([successes], [trials])
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    np.testing.assert_allclose(np.ravel(found), [expected.low, expected.high], atol=1e-6)


def test_nothing_tried_is_an_interval_from_0_to_1():
    assert [float(end[0]) for end in wilson_interval([0], [0])] == [0.0, 1.0]


def calibrated(n=20_000):
    """Probabilities of three classes, and labels drawn from them."""
    rng = np.random.RandomState(0)
    proba = rng.dirichlet([1, 1, 1], n)
    return proba, (proba.cumsum(axis=1) > rng.rand(n, 1)).argmax(axis=1)


def test_calibrated_probabilities_lie_on_the_diagonal():
    proba, y = calibrated()
    said, found, low, high = ReliabilityDisplay.from_predictions(y, proba).curves["predictions"]
    assert np.abs(said - found).max() < 0.03
    assert ((low <= found) & (found <= high)).all()
    overconfident = proba**3 / (proba**3).sum(axis=1, keepdims=True)
    said, found, *_ = ReliabilityDisplay.from_predictions(y, overconfident).curves["predictions"]
    assert (said - found).max() > 0.1


def test_bins_hold_as_many_predictions_and_labels_have_names():
    proba, y = calibrated(40)
    names = np.array(["c", "a", "b"])
    display = ReliabilityDisplay.from_predictions(names[y], proba, classes=names, n_bins=10)
    numbers = ReliabilityDisplay.from_predictions(y, proba, n_bins=10)
    for one, other in zip(
        display.curves["predictions"], numbers.curves["predictions"], strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert len(one) == 10
    assert len(ReliabilityDisplay.from_predictions(y[:4], proba[:4]).curves["predictions"][0]) == 4


def test_unknown_labels_are_left_out_of_reliability():
    rng = np.random.RandomState(0)
    proba = rng.rand(5000, 2)
    y = (rng.rand(5000, 2) < proba).astype(float)
    y[::2, 1] = np.nan
    said, found, *_ = ReliabilityDisplay.from_predictions(y, proba).curves["predictions"]
    assert np.abs(said - found).max() < 0.08


def test_risk_falls_where_certain_images_are_right():
    proba, y = calibrated(2000)
    display = RiskCoverageDisplay.from_predictions(
        y, {"sure": proba}, doubt={"chance": np.random.RandomState(1).rand(2000)}
    )
    coverage, risk = display.curves["sure"]
    error = (proba.argmax(axis=1) != y).mean()
    assert coverage[-1] == 1
    assert risk[-1] == pytest.approx(error)
    assert risk[200:400].mean() < 0.6 * error
    assert display.areas["sure"] < display.areas["chance"]
    assert display.areas["chance"] == pytest.approx(error, abs=0.06)
    assert {line.get_linestyle() for line in plt.gca().lines} == {"-", "--"}


def test_the_confusion_matrix_has_true_classes_in_rows():
    truth, predicted = list("aaabbc"), list("aabbba")
    display = ConfusionDisplay.from_predictions(truth, predicted, classes=list("abcd"))
    assert display.counts.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    texts = [text.get_text() for text in plt.gca().texts]
    assert texts[0].startswith("0.67\n0.21–0.94")
    assert texts[-1] == "–"  # no image of this class
    assert plt.gca().get_yticklabels()[0].get_text() == "a (3)"


@pytest.mark.parametrize("kind", [ReliabilityDisplay, RiskCoverageDisplay, ConfusionDisplay])
def test_figures_of_an_estimator(fitted, kind):
    clf, X, y = fitted
    display, figure = kind.from_estimator(clf, X, y), plt.gcf()
    ax = display.plot(plt.subplots()[1])
    assert ax.figure is not figure
    if kind is ConfusionDisplay:
        assert display.counts.sum() == 60
        assert display.class_names == clf.class_names_
    else:
        assert set(display.curves) == {"diffusion", "prior"}


@pytest.mark.parametrize("kind", [ReliabilityDisplay, RiskCoverageDisplay, ConfusionDisplay])
def test_labels_come_from_a_dataset(fitted, kind):
    clf, X, y = fitted
    with_labels = [{"image": image, "label": label} for image, label in zip(X, y, strict=True)]
    found = vars(kind.from_estimator(clf, DataLoader(with_labels, batch_size=7)))
    for name, value in vars(kind.from_estimator(clf, X, y)).items():
        np.testing.assert_equal(found[name], value)
    with pytest.raises(InputError, match="y"):
        kind.from_estimator(clf, X)


def test_the_confusion_of_each_stage_is_that_of_its_predictions(fitted):
    clf, X, y = fitted
    for stage in ("prior", "diffusion"):
        counts = ConfusionDisplay.from_estimator(clf, X, y, stage=stage).counts
        expected = ConfusionDisplay.from_predictions(y, clf.predict(X, stage=stage)).counts
        assert counts.tolist() == expected.tolist()
    with pytest.raises(InputError, match="'priors'; the model has"):
        ConfusionDisplay.from_estimator(clf, X, y, stage="priors")


def test_what_a_notebook_prints_of_a_result_is_short(fitted):
    clf, X, y = fitted
    shown = repr(clf.explain(X))
    assert shown.startswith("<Explanation: saliency (60, 3, ")
    assert "exclusive True" in shown
    assert repr(clf.predict_uncertainty(X)).startswith("<Uncertainty: proba (60, 3), entropy (60,)")
    results = [clf.explain(X), clf.predict_uncertainty(X), HistoryDisplay.from_estimator(clf)]
    results.append(DenoisingDisplay.from_explanation(results[0]))
    results += [
        kind.from_estimator(clf, X, y)
        for kind in (ReliabilityDisplay, RiskCoverageDisplay, ConfusionDisplay)
    ]
    assert max(len(repr(result)) for result in results) < 400


def test_what_does_not_fit_is_told():
    proba = np.full((4, 3), 1 / 3)
    for make, message in [
        (lambda: ReliabilityDisplay.from_predictions([0, 1], proba), "shapes"),
        (lambda: ReliabilityDisplay.from_predictions([0, 1, 2, 7], proba), r"holds \[7\]"),
        (lambda: RiskCoverageDisplay.from_predictions(np.eye(4), proba), "indicator"),
        (
            lambda: RiskCoverageDisplay.from_predictions([0, 1, 2, 0], proba, doubt={"x": [1]}),
            "doubt",
        ),
        (lambda: ConfusionDisplay.from_predictions(np.eye(3), np.eye(3)), "one label"),
        (lambda: ConfusionDisplay.from_predictions(["x"], ["a"], classes=["a"]), "holds"),
        (lambda: HistoryDisplay([]).plot(), "empty"),
    ]:
        with pytest.raises(InputError, match=message):
            make()


def test_the_history_has_axes_for_each_stage(fitted):
    figure = HistoryDisplay.from_estimator(fitted[0]).plot()
    assert [ax.get_title() for ax in figure.axes] == ["stage one: prior", "stage two: diffusion"]
    assert all(len(ax.lines) == 2 for ax in figure.axes)
    losses = [row["train_loss"] for row in fitted[0].history_ if row["stage"] == "prior"]
    assert figure.axes[0].lines[0].get_ydata().tolist() == losses


def test_a_label_map_has_a_column_for_each_step(fitted):
    clf, X, _ = fitted
    explanation = clf.explain(X[:3], num_steps=4)
    display = DenoisingDisplay.from_explanation(explanation, 2, class_names=clf.class_names_)
    assert display.noisy_maps.shape[0] == 4
    assert len(plt.gcf().axes) == 2 * 4 + 2  # two bars of colours
    first = plt.gcf().axes[0].images[0].get_array()
    assert first[0, 0] == display.noisy_maps[0, 0, display.class_index]  # positions of distance 0
    assert first[0, 1] == first[1, 0] == display.noisy_maps[0, 1, display.class_index]
