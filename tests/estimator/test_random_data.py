"""Datasets and backbones that draw random numbers repeat, and leave the global state alone."""

import random
import warnings

import numpy as np
import pytest
import torch
from tiny import TinyBackbone, small, stripes
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, get_worker_info
from torchvision.transforms import v2

from diffmic import DiffMICClassifier, DiffMICWarning
from diffmic.datasets import inspect

X, y = stripes(24)


def from_torch(image):
    return v2.RandomHorizontalFlip()(image) if torch.rand(()) < 0.9 else image


def from_numpy(image):
    return torch.from_numpy(np.roll(image.numpy(), np.random.randint(9), axis=-1))  # noqa: NPY002


def from_python(image):
    return image.roll(random.randrange(9), dims=-1)


def from_dropout(image):
    return (nn.functional.dropout(image / 255, 0.3)).clamp(0, 1)


class Held:
    """A transform with generators of its own, as albumentations and MONAI have them."""

    def __init__(self):
        self.rng = np.random.default_rng()
        self.R = np.random.RandomState()
        self.py = random.Random()

    def __call__(self, image):
        shift = self.rng.integers(5) + self.R.randint(5) + self.py.randrange(5)
        return image.roll(int(shift), dims=-1)


TRANSFORMS = {
    "torch": from_torch,
    "numpy": from_numpy,
    "python": from_python,
    "dropout": from_dropout,
    "held": Held(),
}


class Scans(Dataset):
    """Images that are changed at random whenever they are read."""

    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return self.transform(torch.from_numpy(X[index])[None]), int(y[index])


class Flow(IterableDataset):
    """The same as a stream."""

    def __init__(self, transform):
        self.scans = Scans(transform)

    def __iter__(self):
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return (self.scans[i] for i in range(first, len(self.scans), step))


class OwnLoader(DataLoader):
    """A DataLoader that iterates in a way of its own."""

    def __iter__(self):
        yield from super().__iter__()


def states():
    """States of the global generators."""
    return torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002


def assert_same_states(before):
    torch_before, python_before, numpy_before = before
    torch_now, python_now, numpy_now = states()
    assert torch.equal(torch_before, torch_now)
    assert python_before == python_now
    np.testing.assert_equal(numpy_before, numpy_now)


def fitted(data, **parameters):
    """A classifier fitted after the global generators were moved somewhere else."""
    torch.rand(int(torch.randint(9, ())))
    np.random.rand(3)  # noqa: NPY002
    random.random()
    before = states()
    clf = DiffMICClassifier(**small(max_epochs=1, augment=None, **parameters)).fit(data)
    assert_same_states(before)
    return clf


CONTAINERS = {
    "Dataset": lambda transform: Scans(transform),
    "DataLoader": lambda transform: DataLoader(Scans(transform), batch_size=8, shuffle=True),
    "stream": lambda transform: Flow(transform),
    "loader of a stream": lambda transform: DataLoader(Flow(transform), batch_size=8),
    "walked": lambda transform: OwnLoader(Scans(transform), batch_size=8),
}


@pytest.mark.parametrize("kind", TRANSFORMS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_random_transforms_repeat_and_touch_no_global_state(container, kind):
    data = CONTAINERS[container](TRANSFORMS[kind])
    first, second = (fitted(data) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    before = states()
    proba = first.predict_proba(data)
    assert_same_states(before)
    np.testing.assert_array_equal(first.predict_proba(data), proba)
    inspect(data, verbose=0, distance=-1)
    assert_same_states(before)


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("container", ["DataLoader", "loader of a stream", "walked"])
def test_random_transforms_repeat_in_workers(container, persistent):
    kinds = {"DataLoader": Scans, "loader of a stream": Flow, "walked": Scans}
    data = kinds[container](TRANSFORMS["held"])
    kind = OwnLoader if container == "walked" else DataLoader
    loader = kind(data, batch_size=8, num_workers=2, persistent_workers=persistent)
    first, second = (fitted(loader).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_the_number_of_workers_has_no_influence_on_random_items():
    alone = fitted(DataLoader(Scans(from_numpy), batch_size=8))
    helped = fitted(DataLoader(Scans(from_numpy), batch_size=8, num_workers=2))
    np.testing.assert_array_equal(alone.predict_proba(X), helped.predict_proba(X))


def test_items_change_from_epoch_to_epoch():
    seen = []

    class Watched(Scans):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            if index == 3:
                seen.append(image)
            return image, label

    data = Watched(from_numpy)
    parameters = small(max_epochs=4, augment=None, validation_fraction=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        DiffMICClassifier(**parameters).fit(data)
    assert len({image.numpy().tobytes() for image in seen}) > 2


def test_predictions_of_random_items_do_not_depend_on_their_subset_or_order():
    clf = fitted(Scans(from_numpy))
    data, order = Scans(from_python), [5, 3, 9, 0]
    proba = clf.predict_proba(data)
    np.testing.assert_allclose(clf.predict_proba(Subset(data, order)), proba[order], atol=1e-6)
    nested = Subset(Subset(data, order), [2, 1])
    np.testing.assert_allclose(clf.predict_proba(nested), proba[[9, 3]], atol=1e-6)
    clf.set_params(batch_size=5)
    np.testing.assert_allclose(clf.predict_proba(data), proba, atol=1e-6)


def test_items_that_seed_themselves_are_as_they_are():
    """torchvision's FakeData sets torch's seed for each item, and puts the state back."""

    class Fake(Scans):
        def __getitem__(self, index):
            state = torch.get_rng_state()
            torch.manual_seed(index)
            image = torch.rand(1, 8, 8)
            torch.set_rng_state(state)
            return image, index % 2

    from diffmic.data import PreparedImages, read_inputs

    expected = Fake(None)[7][0]
    images = PreparedImages(read_inputs(Fake(None)).images, 8, seed=3)
    for epoch in range(2):
        images.epoch = epoch
        torch.testing.assert_close(images[7]["image"][:1], expected)


def test_a_dataset_that_does_not_repeat_is_pointed_out():
    class Unseeded(Scans):
        def __getitem__(self, index):
            noise = np.random.default_rng().integers(0, 255, (1, 32, 32), dtype=np.uint8)
            return torch.from_numpy(noise), int(y[index])

    with pytest.warns(DiffMICWarning, match="Dataset does not repeat"):
        DiffMICClassifier(**small(max_epochs=1)).fit(Unseeded(None))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The Dataset does not repeat")
        fitted(Scans(Held()))


class MonteCarlo(nn.Module):
    """A backbone whose dropout stays on when it is evaluated."""

    def __init__(self, kind="functional"):
        super().__init__()
        self.inner, self.kind = TinyBackbone(), kind

    def forward(self, images):
        features = self.inner(images)
        if self.kind == "functional":
            return nn.functional.dropout2d(features, 0.4, training=True)
        if self.kind == "depth":  # as torchvision and timm drop paths
            kept = features.new_empty(len(features), 1, 1, 1).bernoulli_(0.7)
            return features * kept + 0.1
        return features + 0.3 * torch.randn_like(features)


@pytest.mark.parametrize("kind", ["functional", "depth", "noise"])
def test_a_backbone_that_is_random_in_evaluation_repeats_whatever_the_neighbours(kind):
    probas = []
    for _ in range(2):
        torch.rand(3)
        before = states()
        clf = DiffMICClassifier(**small(max_epochs=1, backbone=MonteCarlo(kind))).fit(X, y)
        assert_same_states(before)
        probas.append(clf.predict_proba(X))
        assert_same_states(before)
    np.testing.assert_array_equal(*probas)
    np.testing.assert_allclose(clf.predict_proba(X[::-1])[::-1], probas[0], atol=1e-5)
    np.testing.assert_allclose(clf.predict_proba(X[4]), probas[0][4:5], atol=1e-5)
    clf.set_params(batch_size=3)
    np.testing.assert_allclose(clf.predict_proba(X), probas[0], atol=1e-5)
    clf.explain(X[:2]), clf.transform(X[:2])
    assert_same_states(before)


def test_a_backbone_that_draws_nothing_runs_on_whole_batches():
    """Functions that could draw, as attention without dropout, do not count."""
    from diffmic.random import LocalRNG

    attention = nn.MultiheadAttention(8, 2, dropout=0.0).eval()
    with LocalRNG(0) as rng, torch.no_grad():
        attention(*[torch.ones(3, 2, 8)] * 3)
        nn.functional.alpha_dropout(torch.ones(3), 0.5, training=False)
    assert not rng.has_drawn
    with rng:
        torch.rand(1)
    assert rng.has_drawn
