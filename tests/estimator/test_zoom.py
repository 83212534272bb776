"""Regions at the image's own resolution: fit, predict, explain, save and load."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset

from diffmic import DiffMICClassifier, DiffMICWarning, InputError, ModelFileError
from diffmic.data import PreparedImages, read_inputs
from diffmic.data.framing import resized
from diffmic.datasets import make_lesions
from diffmic.model import Architecture, DiffusionSettings, NetworkPlan, build_network, carry_over
from diffmic.runtime import OnnxClassifier
from diffmic.tasks import MULTICLASS
from diffmic.training import resolve_recipe

ZOOM = Architecture(regions="zoom", feature_dim=16, num_train_timesteps=100)


def zoom_classifier(**params):
    return DiffMICClassifier(
        **{
            "backbone": "test_resnet",
            "pretrained": False,
            "architecture": ZOOM,
            "image_size": 64,
            "max_epochs": 1,
            "random_state": 0,
            "verbose": 0,
            **params,
        }
    )


@pytest.fixture(scope="module")
def images():
    return make_lesions(40, image_size=200, random_state=0)


@pytest.fixture(scope="module")
def fitted(images):
    return zoom_classifier().fit(*images)


def test_the_zoom_is_as_large_as_the_images(fitted):
    assert (fitted.image_size_, fitted.model_.input_size) == (64, 200)
    assert fitted.model_.plan.architecture.zoom_size == 200
    assert fitted.model_.plan.architecture.region_size == 32


def test_the_zoom_is_no_larger_than_regions_that_cover_the_cells_that_choose_them():
    X, y = make_lesions(12, image_size=400, random_state=0)
    fitted = zoom_classifier(validation_fraction=None).fit(X, y)
    assert fitted.model_.input_size == 256  # 8 cells of 32 pixels


def test_images_smaller_than_the_backbones_input_are_enlarged():
    X, y = make_lesions(12, image_size=40, random_state=0)
    fitted = zoom_classifier(validation_fraction=None).fit(X, y)
    assert fitted.model_.input_size == 64
    assert fitted.predict_proba(X).shape == (12, 3)


def test_boxes_are_in_pixels_of_the_original_and_as_large_as_the_crops(fitted, images):
    X, _ = images
    boxes = fitted.explain(X[:5]).boxes
    assert boxes.shape == (5, 4, 4)
    np.testing.assert_allclose(boxes[..., 2:] - boxes[..., :2], 32, atol=1e-3)
    assert boxes.min() >= 0
    assert boxes.max() <= 200
    larger = fitted.explain([np.kron(x, np.ones((2, 2), np.uint8)) for x in X[:5]]).boxes
    np.testing.assert_allclose(larger[..., 2:] - larger[..., :2], 64, atol=1e-3)


def test_regions_show_what_the_small_image_does_not(fitted, images):
    """Noise of a zero mean over small squares is lost in the small image, but not in a crop."""
    X = torch.from_numpy(images[0][:4])[:, None].expand(-1, 3, -1, -1).float() / 255
    draw = torch.Generator().manual_seed(0)
    fine = torch.rand(X.shape, generator=draw) * 0.4 - 0.2
    fine = fine - torch.nn.functional.avg_pool2d(fine, 2).repeat_interleave(2, 2).repeat_interleave(
        2, 3
    )
    prior = fitted.network_.prior
    with torch.no_grad():
        before, after = prior.whole(X), prior.whole(X + fine)
        crops = [
            prior.regions(x, None, torch.zeros(4, 1, 2, dtype=torch.long)) for x in (X, X + fine)
        ]
    assert (before - after).abs().mean() < 0.02
    assert (crops[0] - crops[1]).abs().mean() > 0.05 * crops[0].abs().mean()


def test_weights_are_shared_and_batch_norm_statistics_are_not(fitted):
    prior = fitted.network_.prior
    whole, crops = (
        dict(b.net.named_parameters()) for b in (prior.backbone, prior.regions.backbone)
    )
    assert whole.keys() == crops.keys()
    assert all(whole[name] is crops[name] for name in whole)
    own, other = (dict(b.net.named_buffers()) for b in (prior.backbone, prior.regions.backbone))
    means = [name for name in own if name.endswith("running_mean")]
    assert means
    assert not any(torch.equal(own[name], other[name]) for name in means)


def test_probabilities_do_not_depend_on_the_neighbours_or_the_engine(fitted, images):
    X, _ = images
    whole = fitted.predict_proba(X)
    alone = np.concatenate([fitted.predict_proba(X[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(alone, whole[:4], atol=1e-5)
    plain = fitted.compile("plain").predict_proba(X)
    fitted.compile()
    np.testing.assert_allclose(plain, whole, atol=1e-4)


def test_a_saved_zoom_predicts_the_same_and_stores_shared_weights_once(fitted, images, tmp_path):
    X, _ = images
    fitted.save_pretrained(tmp_path / "zoom")
    loaded = DiffMICClassifier.from_pretrained(tmp_path / "zoom")
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    prior = loaded.network_.prior
    assert next(prior.backbone.parameters()) is next(prior.regions.backbone.parameters())
    assert loaded.model_.input_size == 200
    numbers = sum(p.numel() for p in fitted.network_.parameters())
    assert (tmp_path / "zoom" / "model.safetensors").stat().st_size < 4.4 * numbers


def test_a_fit_goes_on_from_a_loaded_zoom(fitted, images, tmp_path):
    fitted.save_pretrained(tmp_path / "zoom")
    loaded = DiffMICClassifier.from_pretrained(tmp_path / "zoom").set_params(
        warm_start=True, max_epochs=1, verbose=0
    )
    assert loaded.fit(*images).model_.input_size == 200


def test_a_zoom_with_a_backbone_for_crops_is_an_error():
    with pytest.raises(InputError, match="regions is 'zoom' and region_backbone is given"):
        Architecture(regions="zoom", region_backbone="test_resnet")
    with pytest.raises(InputError, match=r"regions is 'zoomed'; give one of \['windows', 'zoom'\]"):
        Architecture(regions="zoomed")


def test_the_named_architecture_zooms():
    assert zoom_classifier(architecture="zoom").get_params()["architecture"] == "zoom"
    X, y = make_lesions(12, image_size=100, random_state=0)
    fitted = zoom_classifier(architecture="zoom", validation_fraction=None).fit(X, y)
    assert fitted.model_.input_size == 100


# --- The original's own pixels -------------------------------------------------------------------


def spots(size, place, n=1):
    """Dark images (n, *size) with a bright patch whose middle is at a place, as fractions y, x."""
    images = np.full((n, *size), 20, np.uint8)
    y, x = (round(at * side) for at, side in zip(place, size, strict=True))
    images[
        :,
        max(0, y - size[0] // 20) : y + size[0] // 20,
        max(0, x - size[1] // 20) : x + size[1] // 20,
    ] = 230
    return images


@pytest.fixture
def shown(fitted, monkeypatch):
    """Crops that the network reads, by image: a list that fills with (B, K, 3, p, p)."""
    fitted.compile("plain")
    seen = []
    backbone = fitted.network_.prior.regions.backbone
    pooled = backbone.pooled
    monkeypatch.setattr(
        backbone,
        "pooled",
        lambda crops: seen.append(crops.view(-1, 4, *crops.shape[1:])) or pooled(crops),
    )
    yield seen
    fitted.compile()


@pytest.mark.parametrize("size", [(200, 200), (301, 517), (640, 97), (1000, 1200)])
def test_boxes_show_what_the_network_read(fitted, shown, size):
    image = np.random.default_rng(0).integers(0, 255, size).astype(np.uint8)
    boxes = fitted.explain([image]).boxes[0]
    assert boxes[:, 2].max() <= size[1]
    assert boxes[:, 3].max() <= size[0]
    for box, crop in zip(boxes, shown[0][0], strict=True):
        x0, y0, x1, y1 = np.rint(box).astype(int)
        np.testing.assert_allclose([x0, y0, x1, y1], box, atol=1e-3)
        part = torch.from_numpy(image[y0:y1, x0:x1].copy())[None]
        np.testing.assert_allclose(crop[0] * 255, resized(part, 32)[0], atol=1.01)


def middle(images, saliency):
    """Two regions about the middle of each image."""
    box = torch.tensor([[0.25, 0.4, 0.5, 0.8], [0.5, 0.5, 0.75, 1.0]], device=images.device)
    return box.expand(len(images), -1, -1)


def test_regions_of_ones_own_are_cut_from_the_originals(images):
    clf = zoom_classifier(
        architecture=replace(ZOOM, region_finder=middle, n_regions=2), validation_fraction=None
    ).fit(images[0][:12], images[1][:12])
    clf.compile("plain")
    seen = []
    backbone = clf.network_.prior.regions.backbone
    pooled = backbone.pooled
    backbone.pooled = lambda crops: seen.append(crops) or pooled(crops)
    image = np.random.default_rng(0).integers(0, 255, (300, 400)).astype(np.uint8)
    assert clf.explain([image]).boxes[0].tolist() == [[100, 120, 200, 240], [200, 150, 300, 300]]
    for (x0, y0, x1, y1), crop in zip(
        [(100, 120, 200, 240), (200, 150, 300, 300)], seen[0], strict=True
    ):
        part = torch.from_numpy(image[y0:y1, x0:x1].copy())[None]
        np.testing.assert_allclose(crop[0] * 255, resized(part, 32)[0], atol=1.01)


def test_a_zoom_of_the_central_square_reads_regions_in_it(images):
    clf = zoom_classifier(architecture=replace(ZOOM, crop="square"), validation_fraction=None)
    clf.fit(images[0][:12], images[1][:12])
    wide = np.random.default_rng(0).integers(0, 255, (200, 300)).astype(np.uint8)
    boxes, square = clf.explain([wide]).boxes, clf.explain([wide[:, 50:250]]).boxes
    np.testing.assert_allclose(boxes, square + np.array([50, 0, 50, 0]), atol=1e-4)
    np.testing.assert_allclose(
        clf.predict_proba([wide]), clf.predict_proba([wide[:, 50:250]]), atol=1e-6
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_turned_files_are_in_the_pixels_of_the_upright_image(
    fitted, shown, orientation, tmp_path
):
    upright = Image.fromarray(spots((300, 180), (0.3, 0.8))[0])
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions
    stored = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    found = fitted.explain([tmp_path / "turned.png"])
    expected = fitted.explain([np.asarray(upright)])
    assert found.sizes.tolist() == [[300, 180]]
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    assert torch.equal(shown[0], shown[1])


def test_images_of_several_sizes_are_each_read_at_their_own_resolution(fitted, shown):
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 255, size).astype(np.uint8) for size in ((200, 200), (400, 300), (90, 60))
    ]
    found = fitted.explain(images)
    sides = found.boxes[:, 0, 2:] - found.boxes[:, 0, :2]
    np.testing.assert_allclose(sides, [[32, 32], [48, 64], [10, 14]], atol=1e-3)
    sharp = shown[0].diff(dim=-1).abs().mean(dim=(1, 2, 3, 4))
    assert sharp[0] > sharp[1] > sharp[2]
    proba = fitted.predict_proba(images)
    for i, image in enumerate(images):
        np.testing.assert_allclose(fitted.predict_proba([image])[0], proba[i], atol=1e-5)
    np.testing.assert_allclose(fitted.predict_proba(images[::-1]), proba[::-1], atol=1e-5)


def test_large_batches_of_originals_are_read_a_few_at_a_time(fitted, images):
    prepared = PreparedImages(read_inputs(images[0]).images, 64, zoom_size=200)
    batches = list(prepared.batches(40))
    assert [len(batch["original"]) for batch in batches] == [8] * 5
    assert all(batch["image"].shape == (8, 3, 64, 64) for batch in batches)
    assert batches[0]["original"][0].shape == (1, 200, 200)
    assert batches[0]["original"][0].dtype == torch.uint8


def test_what_is_trained_on_is_what_predictions_read(images):
    """Augmented images are squares of the zoom; without a change they are the originals."""
    source = read_inputs(images[0][:3]).images
    plain = PreparedImages(source, 64, zoom_size=200)
    same = PreparedImages(source, 64, zoom_size=200, augment=lambda image: image)
    for i in range(3):
        assert same[i]["original"].shape == (3, 200, 200)
        assert torch.equal(same[i]["original"], plain[i]["original"].expand(3, -1, -1))
        assert torch.equal(same[i]["image"], plain[i]["image"])
    flipped = PreparedImages(source, 64, zoom_size=120, augment=lambda image: image.flip(2))[0]
    assert flipped["original"].shape == (3, 120, 120)
    assert (flipped["image"].flip(2).int() - plain[0]["image"].int()).abs().max() < 12
    torch.testing.assert_close(
        flipped["image"].int(), resized(flipped["original"], 64).int(), atol=1, rtol=0
    )


@pytest.mark.parametrize(
    "augment", ["auto", lambda image: image.flip(2), lambda image: image / 255]
)
def test_views_of_a_zoom_are_averaged(fitted, images, augment):
    X = images[0][:4]
    fitted.set_params(augment=augment)
    one, several = (fitted.predict_proba(X, n_views=n) for n in (1, 3))
    assert not np.allclose(one, several, atol=1e-7) or not isinstance(augment, str)
    np.testing.assert_allclose(fitted.predict_proba(X[1:2], n_views=3)[0], several[1], atol=1e-5)
    fitted.set_params(augment="auto")


def test_an_augmentation_is_tried_on_what_it_gets(images):
    sizes = []
    zoom_classifier(
        validation_fraction=None, augment=lambda image: sizes.append(tuple(image.shape)) or image
    ).fit(images[0][:12], images[1][:12])
    assert set(sizes) == {(3, 200, 200)}
    with pytest.raises(InputError, match=r"augment returned .*\(3, 200, 200\) is needed"):
        zoom_classifier(augment=lambda image: image[:, 1:]).fit(*images)


class Images(IterableDataset):
    """A stream of images."""

    def __init__(self, images):
        self.images = images

    def __iter__(self):
        return iter(self.images)


def test_streams_are_zoomed_too(fitted, images):
    X = images[0][:11]
    np.testing.assert_allclose(fitted.predict_proba(Images(X)), fitted.predict_proba(X), atol=1e-5)


def test_a_zoom_is_read_by_workers(fitted, images):
    X = images[0][:10]
    expected = fitted.predict_proba(X)
    found = fitted.set_params(num_workers=1).predict_proba(X)
    fitted.set_params(num_workers=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


# --- From windows to zoom and back ---------------------------------------------------------------


def statistics(backbone):
    return {n: t for n, t in backbone.named_buffers() if "running" in n}


def test_a_fit_goes_on_from_windows_to_a_zoom(images):
    small = Architecture(feature_dim=16, num_train_timesteps=100)
    clf = zoom_classifier(architecture=small, validation_fraction=None, learning_rate=1e-12).fit(
        *images
    )
    learnt = statistics(clf.network_.prior.backbone)
    network = build_network(replace(clf.model_.plan, architecture=replace(ZOOM, zoom_size=200)))
    carry_over(clf.network_, network, heads=False)
    for backbone in (network.prior.backbone, network.prior.regions.backbone):
        assert learnt.keys() == statistics(backbone).keys()
        assert all(torch.equal(learnt[n], t) for n, t in statistics(backbone).items())
    clf.set_params(architecture=ZOOM, warm_start=True)
    with pytest.warns(
        DiffMICWarning, match="regions were 'windows' and are now read in another way"
    ):
        clf.fit(*images)
    assert clf.predict_proba(images[0][:3]).shape == (3, 3)


def test_a_fit_goes_on_from_a_zoom_to_windows(images):
    clf = zoom_classifier(validation_fraction=None, learning_rate=1e-12).fit(*images)
    learnt = {n: t.clone() for n, t in clf.network_.prior.backbone.state_dict().items()}
    small = Architecture(feature_dim=16, num_train_timesteps=100)
    network = build_network(replace(clf.model_.plan, architecture=small))
    carry_over(clf.network_, network, heads=False)
    assert all(torch.equal(learnt[n], t) for n, t in network.prior.backbone.state_dict().items())
    clf.set_params(architecture=small, warm_start=True)
    with pytest.warns(DiffMICWarning, match="regions were 'zoom' and are now read in another way"):
        clf.fit(*images)
    assert clf.predict_proba(images[0][:3]).shape == (3, 3)


@pytest.mark.parametrize("way", ["to", "from"])
def test_a_zoom_takes_no_weights_of_a_backbone_for_crops(way):
    """Tied weights: what is copied for the crops would replace those of the whole image."""
    made = NetworkPlan(
        "test_resnet", replace(ZOOM, zoom_size=96), 64, 3, MULTICLASS, DiffusionSettings()
    )
    crops = Architecture(region_backbone="test_resnet", region_size=32, feature_dim=16)
    other = build_network(replace(made, architecture=crops))
    zoom = build_network(made)
    learnt, network = (other, zoom) if way == "to" else (zoom, other)
    before = {n: t.clone() for n, t in learnt.prior.backbone.state_dict().items()}
    if way == "from":  # encoders of its own would begin with random weights
        with pytest.raises(InputError, match="warm_start cannot continue"):
            carry_over(learnt, network, heads=False)
        return
    carry_over(learnt, network, heads=False)
    assert all(torch.equal(before[n], t) for n, t in network.prior.backbone.state_dict().items())


def test_the_card_says_what_a_zoom_reads(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "zoom")
    card = " ".join((tmp_path / "zoom" / "README.md").read_text().split())
    assert "4 regions of the original image" in card
    assert "each as 32 × 32 pixels" in card
    assert "its `zoom_size`, 200 pixels" in card


def test_a_saved_zoom_without_its_size_is_an_error(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "zoom")
    file = tmp_path / "zoom" / "config.json"
    config = json.loads(file.read_text())
    config["network"]["architecture"]["zoom_size"] = "auto"
    file.write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match="zoom_size is 'auto', not 1 to"):
        DiffMICClassifier.from_pretrained(tmp_path / "zoom")


@pytest.mark.slow
def test_a_zoom_is_trained_jointly(images):
    joint = replace(resolve_recipe("paper-v1"), denoiser_epochs=1)
    clf = zoom_classifier(recipe=joint, validation_fraction=None)
    clf.fit(images[0][:16], images[1][:16])
    proba = clf.predict_proba([images[0][0], images[0][1][:150]])
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)


@pytest.fixture(scope="module")
def exported(fitted, tmp_path_factory):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    return OnnxClassifier(fitted.export_onnx(tmp_path_factory.mktemp("onnx") / "zoom.onnx"))


@pytest.mark.slow
def test_a_zoom_is_run_by_onnx_runtime(fitted, exported, images):
    X = images[0]
    expected = fitted.predict_proba(X)
    np.testing.assert_allclose(exported.predict_proba(X, batch_size=7), expected, atol=1e-4)
    assert exported.metadata_["zoom_size"] == 200
    assert exported.image_size_ == 64
    try:
        np.testing.assert_allclose(
            fitted.compile("onnxruntime").predict_proba(X), expected, atol=1e-4
        )
    finally:
        fitted.compile()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "larger", "gray"])
def test_an_exported_zoom_reads_files_as_the_estimator_does(
    fitted, exported, images, kind, tmp_path
):
    files = []
    for number, image in enumerate(images[0][:8]):
        picture = Image.fromarray(image)
        if kind == "larger":
            picture = picture.resize((333, 271), Image.Resampling.BICUBIC)
        if kind == "gray":
            picture = picture.convert("L")
        files.append(tmp_path / f"{number}.png")
        picture.save(files[-1])
    np.testing.assert_allclose(
        exported.predict_proba(files),
        fitted.predict_proba(files),
        atol=5e-3 if kind == "larger" else 1e-3,
    )


@pytest.mark.slow
def test_a_zoom_is_exported_by_torch(fitted, images, tmp_path):
    file = fitted.export_torch(tmp_path / "zoom.pt2")
    program = torch.export.load(file).module()
    large = torch.from_numpy(images[0][:5])
    large = (
        large.expand(3, -1, -1, -1).permute(1, 0, 2, 3)
        if large.ndim == 3
        else large.permute(0, 3, 1, 2)
    )
    small = torch.stack([resized(image, 64) for image in large])
    found, _ = program(small, large.contiguous())
    np.testing.assert_allclose(found, fitted.predict_proba(images[0][:5]), atol=1e-4)
