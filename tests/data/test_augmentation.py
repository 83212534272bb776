"""Transforms repeat with the seed, wherever their random numbers come from."""
# ruff: noqa: NPY002  (transforms of users draw from numpy's global generator)

import math
import os
import pickle
import random
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from tiny import small, stripes
from torch import nn
from torchvision.transforms import v2

from diffmic import DiffMICClassifier, DiffMICWarning, InputError
from diffmic.data.augmentation import augmented, check_augment, named_augment
from diffmic.generators import generators_of, seeded

IMAGE = torch.arange(3 * 8 * 8, dtype=torch.uint8).reshape(3, 8, 8)
OWN = np.random.default_rng()


def shaded(image, number):
    """Image in which every pixel shows a random number of 0 to 1."""
    return torch.full_like(image, int(256 * number))


class Transform:
    """As MONAI's: a generator of numpy that the class has until the instance gets its own."""

    R = np.random.RandomState()

    def __call__(self, image):
        return shaded(image, self.R.random_sample())


class TwoGenerators:
    """As those of albumentations: generators of numpy and of Python."""

    __slots__ = ("numbers", "other")

    def __init__(self):
        self.numbers, self.other = np.random.default_rng(), random.Random()

    def __call__(self, image):
        return shaded(image, (self.numbers.random() + self.other.random()) / 2)


class Composed:
    """A list of transforms in a dict, one of which is taken."""

    def __init__(self, *transforms):
        self.parts = {"transforms": list(transforms)}

    def __call__(self, image):
        return random.choice(self.parts["transforms"])(image)

    def method(self, image):
        return self(image)


class Module(nn.Module):
    """As kornia's: a module with a generator of torch's of its own."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator()
        self.generator.seed()

    def forward(self, image):
        return shaded(image, torch.rand((), generator=self.generator))


def in_a_closure():
    generator = np.random.default_rng()
    return lambda image: shaded(image, generator.random())


def in_a_helper(image):
    return helper(image)


def helper(image):
    return shaded(image, OWN.random())


def with_a_default(image, generator=random.Random()):  # noqa: B008
    return shaded(image, generator.random())


AUGMENTS = {
    "torch": lambda image: shaded(image, torch.rand(())),
    "numpy": lambda image: shaded(image, np.random.rand()),
    "Python": lambda image: shaded(image, random.random()),
    "a global variable": lambda image: shaded(image, OWN.random()),
    "a helper": in_a_helper,
    "a default": with_a_default,
    "a closure": in_a_closure(),
    "an argument": partial(lambda g, image: shaded(image, g.random()), np.random.default_rng()),
    "a class": Transform(),
    "slots": TwoGenerators(),
    "a composition": Composed(Transform(), TwoGenerators(), Module()),
    "a method": Composed(TwoGenerators(), TwoGenerators()).method,
    "a module": nn.Sequential(Module()),
    "torchvision": v2.Compose([v2.Lambda(in_a_closure()), v2.RandomHorizontalFlip()]),
    "other bits": partial(
        lambda g, image: shaded(image, g.random()), np.random.Generator(np.random.MT19937())
    ),
}
KINDS = pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)


def states():
    return np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()


@KINDS
def test_a_transform_repeats_with_the_seed_and_differs_with_another(augment):
    first = [augmented(IMAGE, augment, seed) for seed in range(12)]
    np.random.rand(), random.random(), torch.rand(1), OWN.random()
    again = [augmented(IMAGE, augment, seed) for seed in reversed(range(12))]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))
    assert len({image.numpy().tobytes() for image in first}) > 4


@KINDS
def test_all_generators_are_as_they_were_before(augment):
    own = [repr(state_of(generator)) for generator in generators_of(augment)]
    before = states()
    augmented(IMAGE, augment, 3)
    assert states() == before
    assert [repr(state_of(generator)) for generator in generators_of(augment)] == own


def state_of(generator):
    for name in ("getstate", "get_state"):
        if hasattr(generator, name):
            return getattr(generator, name)()
    return generator.bit_generator.state


def test_an_error_restores_the_generators_too():
    def failing(image):
        np.random.rand(), random.random(), torch.rand(1)
        raise KeyError

    before = states()
    with pytest.raises(KeyError), seeded(failing, 0):
        failing(IMAGE)
    assert states() == before


@pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["numpy", "a closure", "a composition"])
def test_fits_repeat_with_their_random_state_in_workers_too(name):
    X, y = stripes(30)
    flip = AUGMENTS[name]

    def augment(image):
        return image.flip(-1) if flip(image).float().mean() < 128 else image

    def fit(**parameters):
        classifier = DiffMICClassifier(**small(max_epochs=1, augment=augment, **parameters))
        return classifier.fit(X, y).predict_proba(X)

    expected = fit()
    before = states()  # after what is imported by a first fit
    np.testing.assert_array_equal(fit(), expected)
    np.testing.assert_array_equal(fit(num_workers=1), expected)
    assert states() == before
    assert not np.array_equal(fit(random_state=1), expected)


def test_views_of_a_prediction_repeat():
    X, y = stripes(30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf = DiffMICClassifier(**small(max_epochs=1, augment=AUGMENTS["numpy"])).fit(X, y)
    found = [clf.predict_proba(X, n_views=3, n_draws=1) for _ in range(2)]
    np.testing.assert_array_equal(*found)


@KINDS
def test_what_repeats_has_no_warning(augment):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_augment(augment, IMAGE, 0)
    check_augment(named_augment("auto"), IMAGE, 0)
    check_augment(None, IMAGE, 0)


def test_a_transform_whose_numbers_come_from_elsewhere_is_told():
    def augment(image):
        return shaded(image, os.urandom(1)[0] / 256)

    with pytest.warns(DiffMICWarning, match="augment does not repeat"):
        check_augment(augment, IMAGE, 0)


def test_a_transform_that_takes_something_else_is_an_error_before_the_work():
    X, y = stripes(30)
    with pytest.raises(InputError, match=r"augment fails on the first image: TypeError.*tensor of"):
        DiffMICClassifier(**small(augment=lambda *, image: image)).fit(X, y)


class Subclass(torch.Tensor):
    """As MONAI's MetaTensor."""


def test_tensors_of_a_kind_of_its_own_become_plain():
    assert type(augmented(IMAGE, lambda image: image.as_subclass(Subclass), 0)) is torch.Tensor


def test_a_search_ends_whatever_the_transform_holds():
    class Deep:
        def __init__(self):
            self.me, self.numbers, self.generator = self, list(range(10**5)), OWN
            self.more = [[object()] * 10 for _ in range(10**4)]

        def __call__(self, image):
            return image

    assert generators_of(Deep()) == [OWN]


def angles(name, n=200):
    """How far a vertical line is turned, in degrees, and whether it is upside down."""
    image = torch.zeros(3, 65, 65)
    image[:, :32, 32] = 1  # the upper half
    rows, columns = torch.meshgrid(torch.arange(65.0), torch.arange(65.0), indexing="ij")
    found = []
    for seed in range(n):
        changed = augmented(image, named_augment(name), seed)[0]
        weight = changed / changed.sum()
        y, x = float((rows * weight).sum()) - 32, float((columns * weight).sum()) - 32
        found.append((math.degrees(math.atan2(x, abs(y))), y > 0))
    return found


@pytest.mark.parametrize(("name", "turned_over"), [("paper", False), ("paper-fundus", True)])
def test_the_papers_rotations_reach_30_degrees_and_flips_are_as_told(name, turned_over):
    turns, over = zip(*angles(name), strict=True)
    assert 27 < max(turns) < 31
    assert -31 < min(turns) < -27
    assert any(over) == turned_over
    if turned_over:
        assert 0.35 < np.mean(over) < 0.65


@pytest.mark.parametrize("name", ["paper", "paper-fundus", "paper-chest"])
def test_the_papers_flip_half_of_the_images(name):
    image = torch.zeros(3, 64, 64)
    image[:, :, 32:] = 1
    right = [augmented(image, named_augment(name), seed)[0, 20:44] for seed in range(200)]
    flipped = [float(x[:, :32].mean()) > float(x[:, 32:].mean()) for x in right]
    assert 0.35 < np.mean(flipped) < 0.65


@pytest.mark.parametrize("name", ["paper", "paper-fundus", "paper-chest"])
def test_the_papers_augmentations_go_to_worker_processes(name):
    copy = pickle.loads(pickle.dumps(named_augment(name)))
    assert torch.equal(augmented(IMAGE, copy, 3), augmented(IMAGE, named_augment(name), 3))


def test_chest_images_are_parts_of_their_own_size():
    image = torch.rand(3, 48, 48)
    for dtype in (torch.float32, torch.uint8):
        whole = (image * 255).to(dtype) if dtype == torch.uint8 else image
        changed = augmented(whole, named_augment("paper-chest"), 0)
        assert changed.shape == whole.shape
        assert changed.dtype == dtype
    ramp = torch.linspace(0, 1, 48).expand(3, 48, 48)
    spans = [
        float(np.ptp(augmented(ramp, named_augment("paper-chest"), seed)[0, 24].numpy()))
        for seed in range(30)
    ]
    assert min(spans) < 0.6  # parts of the image, enlarged
