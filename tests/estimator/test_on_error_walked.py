"""Images that cannot be read, in DataLoaders that are walked and in streams: skipped, or said."""

import numpy as np
import pytest
import torch
from tiny import small, stripes
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate, get_worker_info

from diffmic import DiffMICClassifier, DiffMICWarning
from diffmic.data import read_training_data
from diffmic.errors import InputError

X, Y = stripes(24)
BAD = (3, 8, 9, 10, 11)  # a whole batch of four is among them


class Scans(Dataset):
    """Some of whose items raise."""

    def __init__(self, bad=BAD):
        self.bad = bad

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        worker = get_worker_info()
        assert worker is None or worker.dataset.bad == self.bad
        if index in self.bad:
            raise OSError("the disk is broken")
        return torch.from_numpy(X[index])[None], int(Y[index])


class Flow(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        for item in self.items:
            if item is None:
                raise OSError("the stream is broken")
            yield item


def own_collate(items):
    images, labels = default_collate(items)
    return {"image": images, "label": labels}


def read(X, y=None, **options):
    given = {"sample_weight": None, "groups": None, "validation_data": None}
    return read_training_data(
        X,
        y,
        validation_fraction=None,
        class_weight=None,
        rng=np.random.RandomState(0),
        on_error="skip",
        **given | options,
    )


def kept_labels(data):
    return data.encoding.classes[data.training.targets.argmax(dim=1).numpy()].tolist()


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_items_that_a_walked_loader_cannot_read_are_skipped_and_counted(num_workers):
    loader = DataLoader(Scans(), 4, collate_fn=own_collate, num_workers=num_workers)
    with pytest.warns(DiffMICWarning, match=r"5 of 24 images cannot be used.*Item 3 of the Data"):
        data = read(loader)
    kept = [i for i in range(24) if i not in BAD]
    assert kept_labels(data) == [Y[i] for i in kept]
    for number, index in enumerate(kept):
        np.testing.assert_array_equal(data.training.images[number][0], X[index])


def test_labels_and_weights_given_beside_the_loader_stay_with_their_images():
    loader = DataLoader(Scans(), 4, collate_fn=own_collate)
    with pytest.warns(DiffMICWarning, match="5 of 24"):
        data = read(loader, [f"class {label}" for label in Y], sample_weight=np.arange(24) + 1.0)
    kept = [i for i in range(24) if i not in BAD]
    assert kept_labels(data) == [f"class {Y[i]}" for i in kept]
    weights = np.array([i + 1.0 for i in kept])
    np.testing.assert_allclose(data.training.weights, weights / weights.mean(), rtol=1e-5)


def test_a_fit_skips_items_of_a_walked_loader_in_both_parts():
    clf = DiffMICClassifier(**small(max_epochs=1, on_error="skip", validation_fraction=None))
    loader = DataLoader(Scans(), 4, collate_fn=own_collate)
    with pytest.warns(DiffMICWarning, match="1 of 24 validation images"):
        clf.fit(loader, validation_data=DataLoader(Scans((5,)), 6, collate_fn=own_collate))
    with pytest.raises(InputError, match="the disk is broken"):
        clf.predict_proba(loader)


def test_none_that_can_be_read_is_an_error():
    with pytest.raises(InputError, match=r"None of the 24 images can be used.*disk is broken"):
        read(DataLoader(Scans(range(24)), 4, collate_fn=own_collate))


def test_bad_images_that_a_stream_yields_are_skipped():
    items = [(image / 255, label) for image, label in zip(X, Y.tolist(), strict=True)]
    items[4] = (np.full((32, 32), np.nan), 0)
    items[7] = ("no such file.png", 1)
    with pytest.warns(DiffMICWarning, match="2 of 24 images"):
        data = read(Flow(items))
    assert kept_labels(data) == [Y[i] for i in range(24) if i not in (4, 7)]


class Own(DataLoader):
    def __iter__(self):
        yield from super().__iter__()


@pytest.mark.parametrize("kind", ["stream", "loader of a stream", "own", "collate"])
def test_where_skipping_cannot_help_the_error_says_so(kind):
    items = [(torch.from_numpy(i)[None], int(v)) for i, v in zip(X, Y, strict=True)]
    flow = Flow([*items[:5], None, *items[5:]])

    def failing(items):
        raise RuntimeError("collate is broken")

    given = {
        "stream": lambda: flow,
        "loader of a stream": lambda: DataLoader(flow, 4),
        "own": lambda: Own(Scans(), 4),
        "collate": lambda: DataLoader(Scans(()), 4, collate_fn=failing),
    }[kind]()
    with pytest.raises(InputError, match=r"broken.*on_error='skip' cannot leave it out"):
        read(given)
