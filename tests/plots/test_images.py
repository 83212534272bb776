"""Pictures."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

from diffmic.errors import DiffMICError, InputError
from diffmic.inference import Explanation
from diffmic.plots import plot_predictions, plot_regions


@pytest.fixture
def explanation():
    return Explanation(
        saliency=np.zeros((2, 3, 2, 3), np.float32),
        boxes=np.array([[[0, 0, 10, 10], [20, 10, 30, 20]]] * 2, np.float32),
        attention=np.array([[0.2, 0.8]] * 2, np.float32),
        global_proba=np.full((2, 3), 1 / 3, np.float32),
        local_proba=np.full((2, 3), 1 / 3, np.float32),
        sizes=np.array([[20, 30]] * 2),
    )


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (3, 20, 30)])
def test_regions_are_frames_of_which_the_attended_is_the_thickest(explanation, shape):
    ax = plot_regions(np.zeros(shape, np.uint8), explanation)
    frames = ax.patches
    assert [(p.get_x(), p.get_y(), p.get_width()) for p in frames] == [
        (-0.5, -0.5, 10),
        (19.5, 9.5, 10),
    ]
    assert frames[1].get_linewidth() > frames[0].get_linewidth()


def test_items_of_a_dataset_are_shown_as_their_image(explanation):
    image = np.random.RandomState(0).randint(0, 256, (20, 30), np.uint8)
    expected = plot_regions(image, explanation).images[0].get_array()
    items = [{"image": image, "label": 1}, (image, 1)]
    for item in items:
        assert (plot_regions(item, explanation).images[0].get_array() == expected).all()
    plot_predictions(items, np.eye(3)[:2], np.eye(3)[:2], list("abc"), explanation=explanation)
    with pytest.raises(InputError, match=r"keys \['scan'\]"):
        plot_regions({"scan": image}, explanation)


def test_the_saliency_under_the_regions_is_the_evidence_for_a_class():
    saliency = np.zeros((1, 3, 2, 3), np.float32)
    saliency[0, :, 1, 2] = [9.0, 10.0, -19.0]  # for the classes 0 and 1, against 2
    found = Explanation(
        saliency=saliency,
        boxes=np.array([[[0, 0, 10, 10]]], np.float32),
        attention=np.ones((1, 1), np.float32),
        global_proba=np.array([[0.2, 0.7, 0.1]], np.float32),
        local_proba=np.full((1, 3), 1 / 3, np.float32),
        sizes=np.array([[20, 30]]),
    )
    image = np.zeros((20, 30), np.uint8)
    overlay = plot_regions(image, found).images[1]
    shown = np.asarray(overlay.get_array())
    assert np.unravel_index(shown.argmax(), shown.shape) == (1, 2)
    assert overlay.get_extent() == [-0.5, 29.5, 19.5, -0.5]
    assert np.asarray(plot_regions(image, found, saliency=2).images[1].get_array())[1, 2] == 0
    for off in (False, np.False_):
        assert len(plot_regions(image, found, saliency=off).images) == 1
    assert (plot_regions(image, found, saliency=np.True_).images[1].get_array() == shown).all()


@pytest.mark.parametrize("what", [{"index": 2}, {"saliency": 3}, {"saliency": "a"}])
def test_what_an_explanation_does_not_have_cannot_be_plotted(explanation, what):
    with pytest.raises(InputError, match=f"{next(iter(what))} is .*; the explanation has 0 to"):
        plot_regions(np.zeros((20, 30), np.uint8), explanation, **what)


def test_predictions_show_both_stages_and_mark_mistakes(explanation):
    proba = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    figure = plot_predictions(
        np.zeros((2, 20, 30), np.uint8),
        proba,
        proba[:, ::-1],
        ["a", "b", "c"],
        truth=[2, 2],
        explanation=explanation,
    )
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ["c\nmost probable: c", "c\nmost probable: a"]
    bars = [ax for ax in figure.axes if ax.containers]
    widths = [bar.get_width() for bar in bars[0].containers[0]]
    assert widths == pytest.approx(proba[0])


def test_without_matplotlib_the_error_names_the_extra(monkeypatch, explanation):
    import builtins

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DiffMICError, match=r"diffmic\[plots\]"):
        plot_regions(np.zeros((20, 30), np.uint8), explanation)


@pytest.mark.parametrize(
    ("truth", "titles"),
    [
        (["b", "a"], ["b", "a"]),
        ([[1], [0]], ["b", "a"]),
        ([[1, 1], [0, 0]], ["a, b", "none"]),
    ],
)
def test_the_truth_may_be_names_a_column_or_an_indicator(truth, titles):
    proba = np.array([[0.2, 0.8], [0.7, 0.3]])
    images = np.zeros((2, 8, 8), np.uint8)
    figure = plot_predictions(images, proba, proba, ["a", "b"], truth=truth)
    found = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert found == [
        f"{titles[0]}\nmost probable: b",
        f"{titles[1]}\nmost probable: a",
    ]


@pytest.mark.parametrize(
    ("predicted", "titles"),
    [
        ([0, 2], ["c\npredicted: a", "c\npredicted: c"]),
        (["a", "c"], ["c\npredicted: a", "c\npredicted: c"]),
        ([[0, 0, 1], [0, 0, 0]], ["c\npredicted: c", "c\npredicted: none"]),
    ],
)
def test_titles_name_what_is_predicted_where_thresholds_decide(explanation, predicted, titles):
    proba = np.array([[0.1, 0.6, 0.3], [0.1, 0.6, 0.3]])
    images, truth = np.zeros((2, 20, 30), np.uint8), ["c", "c"]
    figure = plot_predictions(
        images, proba, proba, list("abc"), truth=truth, predicted=predicted, explanation=explanation
    )
    shown = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in shown] == titles
    for ax, title in zip(shown, titles, strict=True):
        assert ax.title.get_color() == ("black" if title.endswith("c") else "#c0392b")


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_images_in_other_units_are_stretched_to_their_range(dtype, as_file, tmp_path):
    from diffmic.plots.images import shown_pixels

    image = (np.arange(60).reshape(6, 10) * 20 - (0 if dtype == "uint16" else 500)).astype(dtype)
    if as_file:
        np.save(tmp_path / "a.npy", image)
    shown = shown_pixels(tmp_path / "a.npy" if as_file else image)[0]
    assert shown.shape == (6, 10)
    np.testing.assert_allclose(shown, np.arange(60).reshape(6, 10) / 59, atol=1e-5)
