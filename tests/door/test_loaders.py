"""DataLoaders: the images and labels that are learnt are those that the loader yields."""

import warnings
from collections import Counter

import numpy as np
import torch
from door.arrays import examples
from door.test_containers import Items, Streamed
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from diffmic.data import read_training_data
from diffmic.errors import InputError

few = examples(120)


def items(n):
    """Images whose pixels are their number, with labels that follow from it."""
    return [(torch.full((1, 2, 2), i, dtype=torch.uint8), i % 3) for i in range(n)]


def relabelled(batch):
    images, labels = default_collate(batch)
    return images, labels + 10


def as_dict(batch):
    images, labels = default_collate(batch)
    return {"image": images, "label": labels}


def inverted(batch):
    images, labels = default_collate(batch)
    return 255 - images, labels


@st.composite
def loaders(draw):
    """A DataLoader, and whether it yields the same images in each epoch."""
    n = draw(st.integers(4, 12))
    data = Items(items(n))
    indices = draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=12))
    options = {"collate_fn": draw(st.sampled_from([None, relabelled, as_dict, inverted]))}
    size = draw(st.integers(2, 5))
    kind = draw(
        st.sampled_from(
            ["plain", "shuffled", "subset", "list", "weighted", "replacement", "batches", "stream"]
        )
    )
    fixed = kind not in ("weighted", "replacement")
    if kind == "batches":
        sampler = draw(st.sampled_from([SequentialSampler(data), indices]))
        options["batch_sampler"] = BatchSampler(sampler, size, drop_last=False)
    elif kind == "stream":
        return DataLoader(Streamed(items(n)), batch_size=size, **options), True
    else:
        options["batch_size"] = size
        options["sampler"] = {
            "subset": lambda: SubsetRandomSampler(sorted(set(indices))),
            "list": lambda: indices,
            "weighted": lambda: WeightedRandomSampler([1.0] * n, n),
            "replacement": lambda: RandomSampler(data, replacement=True),
        }.get(kind, lambda: None)()
        options["shuffle"] = kind == "shuffled"
    return DataLoader(data, generator=torch.Generator().manual_seed(0), **options), fixed


def yielded(loader):
    """Pixel and label of each image that a loader yields."""
    found = []
    for batch in loader:
        images, labels = (batch["image"], batch["label"]) if isinstance(batch, dict) else batch
        found += zip(images[:, 0, 0, 0].tolist(), labels.tolist(), strict=True)
    return Counter(found)


@few
@given(loaders())
def test_what_is_learnt_is_what_the_loader_yields_or_it_is_refused(given):
    loader, fixed = given
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = read_training_data(
                loader,
                None,
                sample_weight=None,
                groups=None,
                validation_data=None,
                validation_fraction=None,
                class_weight=None,
                rng=np.random.RandomState(0),
            )
        except InputError:
            return
    part, classes = data.training, data.encoding.classes
    labels = classes[part.targets.argmax(dim=1).numpy()].tolist()
    read = Counter((int(part.images[i].max()), labels[i]) for i in range(len(part)))
    if fixed:
        assert read == yielded(loader)
    else:
        known = yielded(DataLoader(loader.dataset, batch_size=2, collate_fn=loader.collate_fn))
        assert set(read) <= set(known)


@examples(30)
@given(st.integers(4, 12), st.integers(2, 5), st.sampled_from([None, relabelled, as_dict]))
def test_plain_loaders_are_never_refused(n, size, collate):
    loader = DataLoader(Items(items(n)), batch_size=size, shuffle=True, collate_fn=collate)
    data = read_training_data(
        loader,
        None,
        sample_weight=None,
        groups=None,
        validation_data=None,
        validation_fraction=None,
        class_weight=None,
        rng=np.random.RandomState(0),
    )
    assert len(data.training) == n
    assert data.batch_size == size
