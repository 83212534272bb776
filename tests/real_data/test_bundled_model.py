"""What the package brings does on real images what its card says."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from diffmic import DiffMICClassifier, InputError
from diffmic.datasets import read_csv
from diffmic.model import Architecture, resolve_architecture
from diffmic.runtime import OnnxClassifier
from diffmic.training import Recipe, resolve_recipe

pytestmark = pytest.mark.real_data
SMALL_BACKBONES = {
    "prior_backbone": "resnet10t",
    "region_backbone": "resnet10t",
    "feature_dim": 1024,
}


@pytest.fixture(scope="module")
def test_part(data_folder):
    return read_csv(data_folder / "aptos2019_dr" / "labels.csv").part("test")


def test_the_bundled_model_does_on_the_test_part_what_its_card_says(test_part):
    clf = DiffMICClassifier.from_pretrained("diffmic-v2-aptos")
    found = clf.evaluate(test_part.paths, test_part.labels)
    assert clf.card_.n_test == len(test_part)
    for stage, stored in clf.card_.test_scores.items():
        # Another processor may round otherwise; a percent is seven images.
        same = {name: found[stage][name] for name in stored}  # newer metrics are in no older card
        assert same == pytest.approx(stored, abs=0.01)


def every(table, n_images):
    """About so many images of a table, evenly spread; their paths and labels."""
    step = -(-len(table) // n_images)
    return table.paths[::step], table.labels[::step]


def assert_close_in(precision, clf, paths, whole, stage="diffusion"):
    """Probabilities near those in fp32 for most images, and seldom another class on top.

    Not for all: regions are chosen by the last bits, and half precision chooses others.
    """
    half = clf.set_params(precision=precision).predict_proba(paths, stage=stage)
    moved = np.abs(half - whole).max(axis=1)
    assert np.median(moved) < 0.03
    assert np.quantile(moved, 0.9) < 0.15
    assert (half.argmax(axis=1) == whole.argmax(axis=1)).mean() >= 0.94
    return half


def four_networks(table):
    """As in the paper, with wide layers; briefly trained, so that none is certain."""
    return DiffMICClassifier.from_preset(
        "paper-v2",
        backbone="test_vit",
        pretrained=False,
        image_size=160,
        architecture=replace(resolve_architecture("paper-v2"), **SMALL_BACKBONES),
        recipe=replace(resolve_recipe("paper-v2"), denoiser_epochs=6),
        max_epochs=3,
        random_state=0,
        verbose=0,
    ).fit(*every(table, 140))


def wide_layers(table):
    """The default with wide layers, after enough training to tell classes apart.

    The scores of the diffusion alone make its probabilities.
    """
    return DiffMICClassifier(
        image_size=96,
        architecture=Architecture(feature_dim=1024),
        recipe=Recipe(stacked=False, n_cached_views=1, steps_per_epoch=20, batch_size=64),
        max_epochs=4,
        random_state=0,
        verbose=0,
    ).fit(*every(table, 140))


@pytest.fixture(scope="module", params=["busi_ultrasound", "chest_xray_pneumonia"])
def table(request, data_folder):
    return read_csv(data_folder / request.param / "labels.csv")


@pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
@pytest.mark.parametrize(
    ("arrangement", "stage", "least_certain"),
    [(four_networks, "prior", 0.35), (wide_layers, "diffusion", 0.9)],
)
def test_half_precision_keeps_probabilities_on_real_images(
    table, arrangement, stage, least_certain
):
    clf = arrangement(table.part("train"))
    paths, _ = every(table.part("test"), 100)
    whole = clf.set_params(precision="fp32").predict_proba(paths, stage=stage)
    assert np.quantile(whole.max(axis=1), 0.9) > least_certain  # else nothing would be at stake
    half = assert_close_in("bf16", clf, paths, whole, stage)  # fp16 takes minutes on a CPU
    assert (half != whole).any()  # else it was not another way


@pytest.fixture(scope="module")
def bundled(test_part):
    """The bundled model with some test images, and what it says of them in fp32."""
    clf = DiffMICClassifier.from_pretrained("diffmic-v2-aptos")
    paths, _ = every(test_part, 100)
    return clf, paths, clf.set_params(precision="fp32").predict_proba(paths)


def test_regions_of_the_bundled_model_lie_on_the_retina(bundled):
    """Not on the black around it, which has a quarter of the pixels."""
    clf, paths, _ = bundled
    found, on_black, shares = clf.explain(paths[:60]), [], []
    for path, boxes in zip(paths, found.boxes, strict=False):
        with Image.open(path) as image:
            black = np.asarray(image.convert("RGB")).max(axis=2) < 24
        shares.append(black.mean())
        x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2).astype(int).T
        on_black.append(black[y, x].mean())
    assert np.mean(shares) > 0.15
    assert np.mean(on_black) < 0.05  # 0.62 by the formula that it was trained with


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_keeps_probabilities_of_the_bundled_model(bundled, precision):
    clf, paths, whole = bundled
    assert len(paths) > 80
    some = slice(None if precision == "bf16" else 20)  # fp16 is slow on a CPU
    assert_close_in(precision, clf, paths[some], whole[some])


@pytest.mark.parametrize(("precision", "allowed"), [("float32", 1e-3), ("float16", 0.02)])
def test_an_exported_file_keeps_probabilities(bundled, precision, allowed, tmp_path):
    """Of photographs, which Pillow resizes there and torchvision here."""
    pytest.importorskip("onnxscript")
    clf, paths, whole = bundled
    images = None if precision == "float32" else paths[:40]
    file = clf.export_onnx(tmp_path / "model.onnx", precision=precision, images=images)
    found = OnnxClassifier(file, num_threads=1).predict_proba(paths[:40])
    assert np.abs(found - whole[:40]).max() <= allowed


def test_eight_bits_that_move_probabilities_are_not_written(bundled, tmp_path):
    pytest.importorskip("onnxscript")
    clf, paths, _ = bundled
    with pytest.raises(InputError, match=r"by more than 0\.02 for .* Nothing was written"):
        clf.export_onnx(tmp_path / "model.onnx", precision="int8", images=paths[:40])
    assert not list(tmp_path.iterdir())
