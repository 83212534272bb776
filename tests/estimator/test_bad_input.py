"""What cannot be used is refused before any work, and told what was found and what to do."""

import warnings

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError
from tiny import small
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchvision.transforms import v2

from diffmic import DiffMICClassifier, DiffMICWarning, InputError
from diffmic.training import Recipe

N, SIZE = 24, 32
X = np.random.RandomState(0).randint(0, 256, (N, SIZE, SIZE), np.uint8)
Y = np.arange(N) % 3


class Cells(nn.Module):
    """Images of 32 pixels become 4 × 4 cells; smaller ones than a cell do not fit."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, stride=8)

    def forward(self, images):
        return self.conv(images)


class Vectors(Cells):
    def forward(self, images):
        return super().forward(images).mean(dim=(2, 3))


class Items(Dataset):
    def __init__(self, form):
        self.form = form

    def __len__(self):
        return N

    def __getitem__(self, index):
        return self.form(X[index], int(Y[index]))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.from_numpy(X))


@pytest.fixture
def no_training(monkeypatch):
    def reached(*args, **kwargs):
        pytest.fail("training began")

    monkeypatch.setattr("diffmic.classifier.fit_network", reached)


def assert_refused(message, X=X, y=Y, *, parameters=None, **options):
    """Fit raises an InputError, which is a ValueError, and leaves no fitted attribute."""
    classifier = DiffMICClassifier(**small(**{"backbone": Cells(), **(parameters or {})}))
    with pytest.raises(InputError, match=message) as caught:
        classifier.fit(X, y, **options)
    assert isinstance(caught.value, ValueError)
    assert not [name for name in vars(classifier) if name.endswith("_")]


def spoilt(value, dtype=np.float32):
    images = (X / 255).astype(dtype)
    images[5, 3, 4] = value
    return images


# --- Images -------------------------------------------------------------------------------------

BAD_IMAGES = {
    "NaN": (lambda: spoilt(np.nan), r"NaN or infinite, first in image 5\. Remove the image or"),
    "infinite": (
        lambda: spoilt(np.inf),
        r"NaN or infinite, first in image 5\. Remove the image or",
    ),
    "already normalised": (
        lambda: (X / 255 - 0.45) / 0.22,
        r"must lie in 0–1; found -2\.\d+ to 2\.5\. They look normalised already.*without Normal",
    ),
    "0–255 as float": (
        lambda: X.astype(np.float32),
        r"must lie in 0–1; found 0 to 255\. Divide them by .*\(255 for 8-bit images\).* uint8",
    ),
    "int16": (
        lambda: X.astype(np.int16),
        "type int16, whose range is not known. Scale them to uin",
    ),
    "int64 tensor": (lambda: torch.from_numpy(X).long(), r"type torch\.int64, whose range"),
    "bool": (lambda: X > 127, "type bool, whose range is not known"),
    "object": (lambda: X.astype(object), "type object, whose range is not known"),
    "two channels": (
        lambda: np.stack([X, X], axis=1),
        r"shape \(2, 32, 32\); 1 \(gray\) or 3 \(RGB\) channels .* Choose or combine channels",
    ),
    "four channels": (lambda: np.stack([X] * 4, axis=3), r"shape \(32, 32, 4\); 1 \(gray\) or 3"),
    "a table": (lambda: X.reshape(N, -1), r"dim 2: shape \(24, 1024\)\. Reshape your data"),
    "no images": (lambda: X[:0], "X holds no images"),
    "an empty list": (list, "X holds no images"),
    "None": (lambda: None, "X is a NoneType; give an array or tensor of images"),
    "a string": (lambda: "images/", "X is one image, 'images/'; give a list"),
    "a number": (lambda: 7, "X is a int; give an array or tensor of images"),
    "a dict": (lambda: {"scan": X}, r"X is a dict with the keys \['scan'\].*image_key="),
    "numbers": (
        lambda: [1] * N,
        "image 0 is a int; give an array, a tensor, a PIL image or a path",
    ),
    "a missing file": (lambda: ["no/such.png"] * N, r"file 'no/such\.png' does not exist"),
    "dicts without images": (
        lambda: Items(lambda image, label: {"scan": image, "label": label}),
        r"Item 0 of the Dataset is a dict with the keys \['label', 'scan'\].*image_key=",
    ),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
@pytest.mark.usefixtures("no_training")
def test_images_that_cannot_be_used_are_refused(kind):
    images, message = BAD_IMAGES[kind]
    assert_refused(message, images())


@pytest.mark.parametrize(
    "kind", sorted(BAD_IMAGES.keys() - {"a table"})
)  # that is one gray image then
def test_images_that_cannot_be_used_are_refused_when_predicting(fitted, kind):
    images, message = BAD_IMAGES[kind]
    if kind == "a string":  # one path is one image then
        message = "file 'images/' does not exist"
    for method in (fitted.predict, fitted.predict_proba, fitted.transform, fitted.explain):
        with pytest.raises(InputError, match=message):
            method(images())


@pytest.mark.usefixtures("no_training")
def test_a_file_that_is_no_image_is_named(tmp_path, fitted):
    paths = [tmp_path / f"{i}.png" for i in range(N)]
    for path in paths:
        Image.fromarray(X[0]).save(path)
    paths[7].write_text("file,label\n")
    message = r"7\.png' is not an image that can be read"
    assert_refused(message, paths)
    with pytest.raises(InputError, match=message):
        fitted.predict(list(map(str, paths)))


@pytest.mark.usefixtures("no_training")
def test_tables_are_refused_and_their_columns_named(fitted):
    frame = pandas.DataFrame({"file": ["a.png"] * N, "label": Y})
    message = r"table with the columns \['file', 'label'\]; give the column of image paths"
    assert_refused(message, frame)
    with pytest.raises(InputError, match=message):
        fitted.predict(frame)
    assert_refused("X is a table", pandas.DataFrame(X.reshape(N, -1)))
    assert_refused("y has shape|multi-label", y=frame.assign(label="a"))


# --- Targets ------------------------------------------------------------------------------------

BAD_TARGETS = {
    "no y": (None, "y is missing: .* Give y, or a Dataset or DataLoader whose items hold targets"),
    "one class": (
        np.zeros(N),
        r"y holds one class, \[0\.0\]: a classifier needs at least 2 classes",
    ),
    "another length": (Y[:-1], "24 images, but y has 23 entries"),
    "NaN": (
        np.where(Y == 2, np.nan, Y),
        "y contains NaN, infinity or None. Remove images without a label, or label them",
    ),
    "infinity": (np.where(Y == 2, np.inf, Y), "y contains NaN, infinity or None"),
    "None": ([None, "a", "b"] * 8, "y contains NaN, infinity or None"),
    "continuous": (Y + np.linspace(0, 0.5, N), "continuous.*must be integers, strings, or an ind"),
    "indicators beyond 0 and 1": (
        np.eye(3, dtype=int)[Y] * 2,
        r"shape \(24, 3\), which means multi-label, where only 0 and 1 are allowed; found \[2\]",
    ),
    "three dimensions": (np.zeros((N, 2, 2)), r"y has shape \(24, 2, 2\); labels of shape \(n,\)"),
    "ragged": ([[0, 1], [1]] * 12, "y holds collections of labels.*MultiLabelBinarizer"),
    "strings and numbers": (np.array(["a", 1, 2] * 8, object), "y mixes strings and numbers"),
}


@pytest.mark.parametrize("kind", BAD_TARGETS)
@pytest.mark.usefixtures("no_training")
def test_targets_that_cannot_be_used_are_refused(kind):
    y, message = BAD_TARGETS[kind]
    assert_refused(message, y=y)


@pytest.mark.parametrize(
    "data",
    [
        Items(lambda image, label: image),
        Items(lambda image, label: {"image": image}),
        DataLoader(Items(lambda image, label: (image,)), batch_size=4),
        Stream(),
        DataLoader(Stream(), batch_size=4),
    ],
    ids=["Dataset", "dicts", "DataLoader", "IterableDataset", "IterableDataset's DataLoader"],
)
@pytest.mark.usefixtures("no_training")
def test_data_without_targets_are_refused(data):
    assert_refused(r"no target|and 0 targets.*fit needs \(image, target\) pairs", data, None)


@pytest.mark.usefixtures("no_training")
def test_a_loader_of_single_images_is_refused():
    loader = DataLoader(Items(lambda image, label: (image, label)))
    assert_refused("batch_size is 1; .* Give the DataLoader a batch_size", loader, None)


@pytest.mark.parametrize(
    ("validation_data", "message"),
    [
        ((X[:2], [0, 9]), r"unseen labels: \[9\]; the known classes are \[0, 1, 2\]"),
        ((X[:2], ["0", "1"]), r"unseen labels: \['0', '1'\]; the known classes are \[0, 1, 2\]"),
        ((X[:2], [0, 1, 2]), "2 images, but validation y has 3 entries"),
        ((X[:2].astype(float), [0, 1]), "Divide them"),
        ((X[:0], []), "X holds no images"),
        (X[:5], "y is missing"),
    ],
)
@pytest.mark.usefixtures("no_training")
def test_validation_data_that_cannot_be_used_are_refused(validation_data, message):
    assert_refused(message, validation_data=validation_data)


@pytest.mark.usefixtures("no_training")
def test_too_few_images_to_set_a_validation_part_aside_are_refused():
    assert_refused(
        "3 images of 3 classes are too few .*validation_data, or validation_f", X[:3], Y[:3]
    )


# --- Weights, groups, names ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": [-1.0, *np.ones(N - 1)]}, r"sample_weight .*at least 0.*with \[-1\.0\]"),
        ({"sample_weight": [np.nan, *np.ones(N - 1)]}, r"sample_weight .*finite.*with \[nan\]"),
        ({"sample_weight": np.ones(N - 1)}, "24 images, but sample_weight has 23 entries"),
        ({"sample_weight": np.ones((N, 2))}, r"sample_weight .*one each; found shape \(24, 2\)"),
        ({"sample_weight": ["heavy"] * N}, r"sample_weight .*with \['heavy'"),
        ({"sample_weight": np.zeros(N)}, "sample_weight is zero for every image"),
        ({"groups": np.arange(N - 1)}, "24 images, but groups has 23 entries"),
        ({"groups": [None] * N}, "groups .*one group per image, with none missing"),
        ({"groups": [0] * N}, r"24 images in 1 group\(s\) are too few .*validation_data"),
    ],
)
@pytest.mark.usefixtures("no_training")
def test_weights_and_groups_that_cannot_be_used_are_refused(options, message):
    assert_refused(message, **options)


BAD_PARAMETERS = [
    ("backbone", Vectors(), r"Vectors returned \(1, 4\); a feature map .* Leave out its pooling"),
    ("backbone", 5, "backbone is 5; give the name of a timm model or a torch.nn.Module"),
    ("prior_backbone", Cells(), r"has a prior_backbone.*Use recipe='paper-v2', or a Recipe with"),
    ("n_regions", 50, "n_regions is 50, but .* 8 × 8 cells.* room for 49 .*Use n_regions='auto'"),
    ("region_size", 33, r"region_size is 33; .*between 1 and the image_size of 32"),
    ("image_size", 6, "Cells cannot take images of 6 × 6 pixels: .* Choose another image_size"),
    ("image_size", -32, "image_size is -32; it must be 'auto' or"),
    ("num_steps", 51, "num_steps is 51; .* between 1 and num_train_timesteps, which is 50"),
    ("n_draws", 0, "n_draws is 0; it must be an integer of at least 1"),
    ("task", "grading", r"task is 'grading'; give 'auto' or one of \['multiclass', 'multil"),
    ("task", "multilabel", "task='multilabel'|multilabel"),
    (
        "architecture",
        "huge",
        r"architecture is 'huge'; give one of \['default', 'paper-v1', 'paper-v2', 'zoom'\] or",
    ),
    (
        "recipe",
        "sushi",
        r"recipe is 'sushi'; give one of \['default', 'paper-v1', 'paper-v2'\] or a Recipe",
    ),
    ("max_epochs", 0, "max_epochs is 0; it must be an integer of at least 1"),
    ("batch_size", 1, "batch_size is 1; batch norm needs at least 2 images"),
    ("learning_rate", 0, "learning_rate is 0; it must be a number above 0"),
    ("validation_fraction", 1.0, r"validation_fraction is 1\.0; .*between 0 and 1, or be None"),
    ("class_weight", {7: 2.0}, r"class_weight contains \[7\], but the classes are \[0, 1, 2\]"),
    ("class_weight", {0: -1.0}, r"class_weight must hold .*at least 0"),
    ("class_weight", "even", "class_weight is 'even'; give None, 'balanced' or a dict"),
    (
        "augment",
        "strong",
        r"augment is 'strong'; give one of \['auto', 'rotations'\], None, or",
    ),
    ("class_names", ["a", "b"], r"class_names has 2 names, but y holds 3 classes: \[0, 1, 2\]"),
    ("precision", "fp8", r"precision is 'fp8'; give 'auto' or one of \['fp32', 'bf16', 'fp16'\]"),
    ("device", "abacus", "device is 'abacus', which cannot be used here: .* Give 'cpu' or 'auto'"),
    ("num_workers", -1, "num_workers is -1; it must be an integer of at least 0"),
    ("random_state", "luck", "random_state is 'luck'; give None, an integer .* or a numpy"),
    ("random_state", -1, "random_state is -1; give None, an integer from 0"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD_PARAMETERS)
@pytest.mark.usefixtures("no_training")
def test_parameters_that_cannot_be_used_are_refused(name, value, message):
    assert_refused(message, parameters={name: value})


@pytest.mark.parametrize("name", ["prior_backbone", "region_backbone"])
@pytest.mark.usefixtures("no_training")
def test_other_encoders_without_a_feature_map_are_refused(name):
    recipe = Recipe(cached=False, n_cached_views=0, feature_noise=0.0)
    parameters = {name: Vectors(), "recipe": recipe}
    assert_refused(r"Vectors returned \(1, 4\)", parameters=parameters)


@pytest.mark.usefixtures("no_training")
def test_a_backbone_that_timm_does_not_know_is_refused_with_close_ones():
    classifier = DiffMICClassifier(**small(backbone="resnet81", pretrained=False))
    with pytest.raises(InputError, match=r"timm has no model 'resnet81'\. Close ones: .*resnet"):
        classifier.fit(X, Y)


@pytest.mark.parametrize(
    ("augment", "found"),
    [
        (v2.CenterCrop(16), r"\(3, 16, 16\)"),
        (v2.Grayscale(), r"\(1, 32, 32\)"),
        (lambda image: image.numpy(), "ndarray"),
        (lambda image: None, "NoneType"),
    ],
    ids=["smaller", "one channel", "array", "None"],
)
@pytest.mark.usefixtures("no_training")
def test_an_augmentation_that_returns_something_else_is_refused(augment, found):
    message = rf"augment returned {found}; a tensor of shape \(3, 32, 32\) is needed"
    assert_refused(message, parameters={"augment": augment})


# --- Predicting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["predict", "predict_proba", "transform", "explain", "score"])
def test_what_needs_a_fit_says_so(method):
    arguments = (X, Y) if method == "score" else (X,)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(DiffMICClassifier(**small()), method)(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 51}, "num_steps is 51; .* between 1 and num_train_timesteps, which is 50"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"num_steps": "ten"}, "num_steps is 'ten'"),
        ({"n_draws": 0}, "n_draws is 0"),
        ({"n_draws": 1.5}, r"n_draws is 1\.5; it must be an integer of at least 1"),
        ({"n_draws": "many"}, "n_draws is 'many'"),
        ({"stage": "posterior"}, "stage is 'posterior'; give one of .*'diffusion', 'prior'"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_options_of_predicting_that_cannot_be_used_are_refused(fitted, options, message, method):
    with pytest.raises(InputError, match=message):
        getattr(fitted, method)(X, **options)


@pytest.mark.parametrize("kind", sorted(BAD_TARGETS.keys() - {"one class"}))
def test_targets_that_cannot_be_used_are_refused_when_scoring(fitted, kind):
    y, message = BAD_TARGETS[kind]
    if kind == "indicators beyond 0 and 1":  # the task is known by now
        message = r"shape \(24, 3\), but a multiclass or ordinal task.*Row 0 has other values"
    with pytest.raises(InputError, match=message):
        fitted.score(X, y)


def test_a_refused_fit_leaves_a_fitted_classifier_as_it_was(images):
    classifier = DiffMICClassifier(**small(max_epochs=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiffMICWarning)
        classifier.fit(*images)
    before = classifier.predict_proba(X)
    with pytest.raises(InputError):
        classifier.fit(X.astype(float), Y)
    np.testing.assert_array_equal(classifier.predict_proba(X), before)
