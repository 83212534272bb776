"""What a DataLoader would yield is what is read, or it is refused with the way out."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from diffmic.data import Stream, read_inputs
from diffmic.data.images import as_image
from diffmic.data.loaders import is_walked
from diffmic.errors import DiffMICWarning, InputError

N, H, W = 7, 6, 10
RGB = np.random.RandomState(0).randint(0, 256, (N, 3, H, W), np.uint8)
LABELS = np.array([2, 0, 1, 1, 2, 0, 1])
PAIRS = TensorDataset(torch.from_numpy(RGB), torch.from_numpy(LABELS))


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def found(loader, **options):
    """Images and labels that are read from a loader."""
    inputs = read_inputs(loader, with_targets=True, **options)
    images = [inputs.images[i] for i in range(len(inputs.images))]
    return torch.stack(images).numpy(), inputs.targets.tolist()


def assert_read(loader, expected, **options):
    """The items ``expected`` are read, as the loader yields them."""
    images, labels = found(loader, **options)
    np.testing.assert_array_equal(images, RGB[expected])
    assert labels == LABELS[expected].tolist()


# --- Samplers -------------------------------------------------------------------------------------

EVERY = list(range(N))
CHOICES = {
    "shuffle": ({"shuffle": True, "batch_size": 2}, EVERY),
    "RandomSampler": ({"sampler": RandomSampler(PAIRS, num_samples=N), "batch_size": 2}, EVERY),
    "BatchSampler": ({"batch_sampler": BatchSampler(RandomSampler(PAIRS), 2, False)}, EVERY),
    "BatchSampler as sampler": (
        {"sampler": BatchSampler(SequentialSampler(PAIRS), 2, False), "batch_size": None},
        EVERY,
    ),
    "no batches": ({"batch_size": None}, EVERY),
    "subset": ({"sampler": SubsetRandomSampler([2, 0])}, [2, 0]),
    "subset, tensor": ({"sampler": SubsetRandomSampler(torch.tensor([2, 0]))}, [2, 0]),
    "first": ({"sampler": SequentialSampler(range(3))}, [0, 1, 2]),
    "list": ({"sampler": [3, 1]}, [3, 1]),
    "tuple": ({"sampler": (3, 1)}, [3, 1]),
    "range": ({"sampler": range(0, N, 2)}, [0, 2, 4, 6]),
    "array": ({"sampler": np.array([3, 1])}, [3, 1]),
    "tensor": ({"sampler": torch.tensor([3, 1])}, [3, 1]),
    "batches": ({"batch_sampler": [[0, 1], [5]]}, [0, 1, 5]),
    "batches of a list": ({"batch_sampler": BatchSampler([4, 2, 0], 2, False)}, [4, 2, 0]),
}


@pytest.mark.parametrize(("options", "expected"), CHOICES.values(), ids=CHOICES)
def test_the_items_that_a_sampler_chooses_are_read_each_once(options, expected):
    assert_read(DataLoader(PAIRS, **options), expected)
    predicted = read_inputs(DataLoader(PAIRS, **options), known_channels=3)
    assert len(predicted.images) == len(expected)


@pytest.mark.parametrize(("options", "expected"), CHOICES.values(), ids=CHOICES)
def test_the_same_items_are_read_with_a_collate_fn_of_its_own(options, expected):
    made = options.get("batch_size", 1) is None  # the Dataset makes batches, or there are none
    loader = DataLoader(
        PAIRS, **options, collate_fn=lambda items: items if made else default_collate(items)
    )
    images, labels = found(loader)
    np.testing.assert_array_equal(images, RGB[expected])
    assert labels == LABELS[expected].tolist()


def test_subsets_of_subsets_are_followed():
    data = Subset(Subset(PAIRS, [6, 5, 4, 3]), [3, 1, 0])
    assert_read(DataLoader(data, 2, sampler=[2, 0]), [6, 3])


class EverySecond(Sampler):
    def __iter__(self):
        return iter(range(0, N, 2))


class OwnBatches(Sampler):
    def __iter__(self):
        return iter([[0, 1], [2]])


class Shuffled(RandomSampler):
    """Nobody knows what a subclass does."""


class SomeOf(SubsetRandomSampler):
    def __iter__(self):
        return iter(self.indices[:1])


def repeated():
    return RandomSampler(PAIRS, replacement=True, num_samples=4 * N)


REFUSED = {
    "weighted": ({"sampler": WeightedRandomSampler([1.0] * N, N)}, "class_weight and sample_weigh"),
    "own": ({"sampler": EverySecond()}, r"EverySecond; .*Subset\(dataset, indices\)"),
    "own batches": ({"batch_sampler": OwnBatches()}, "OwnBatches; .*Subset"),
    "replacement": ({"sampler": repeated()}, "with replacement, which repeats items; .*Subset"),
    "batches": ({"batch_sampler": BatchSampler(repeated(), 2, False)}, "with replacement"),
    "batches as items": (
        {"sampler": BatchSampler(repeated(), 2, False), "batch_size": None},
        "with replacement",
    ),
    "more": ({"sampler": RandomSampler(PAIRS, num_samples=9)}, "of 9 items for a Dataset of 7"),
    "fewer": ({"sampler": RandomSampler(PAIRS, num_samples=3)}, "of 3 items for a Dataset of 7"),
    "distributed": ({"sampler": DistributedSampler(PAIRS, 2, 0)}, "a DistributedSampler; .*Subset"),
    "subclass": ({"sampler": Shuffled(PAIRS)}, "a Shuffled; .*Subset"),
    "subclass of subset": ({"sampler": SomeOf(range(N))}, "a SomeOf; .*Subset"),
    "repeated indices": ({"sampler": [0, 1, 1]}, "repeats items: 3 indices, of which 2 differ"),
    "repeated, from the end": ({"sampler": [-1, N - 1]}, "repeats items"),
    "repeated in batches": ({"batch_sampler": [[0, 1], [1]]}, "repeats items"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("collate", [None, lambda items: default_collate(items)])
def test_other_samplers_are_refused_with_the_way_out(options, message, collate):
    loader = DataLoader(PAIRS, **options, collate_fn=collate)
    for known_channels in (None, 3):
        with pytest.raises(InputError, match=message):
            read_inputs(loader, known_channels=known_channels)


@pytest.mark.parametrize("collate", [None, lambda items: default_collate(items)])
def test_a_last_batch_that_is_dropped_is_not_read_and_that_is_said(collate):
    loader = DataLoader(PAIRS, 3, drop_last=True, collate_fn=collate)
    with pytest.warns(DiffMICWarning, match=r"the last 1 of 7 images are not read"):
        assert_read(loader, EVERY[:6])


@pytest.mark.parametrize("fitting", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 3, "drop_last": True, "shuffle": True},
        {"batch_sampler": BatchSampler(RandomSampler(PAIRS), 3, drop_last=True)},
    ],
)
def test_no_batch_of_a_shuffling_loader_with_a_function_of_its_own_is_dropped(options, fitting):
    loader = DataLoader(PAIRS, collate_fn=lambda items: default_collate(items), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_read(loader, EVERY, known_channels=None if fitting else 3)


def test_a_last_batch_that_is_dropped_after_shuffling_is_another_each_time():
    loader = DataLoader(PAIRS, 3, drop_last=True, shuffle=True)
    assert_read(loader, EVERY)
    with pytest.warns(DiffMICWarning, match="would drop its last 1 images: all 7 are read"):
        assert_read(loader, EVERY, known_channels=3)


# --- What collates by batch, and what iterates by itself ------------------------------------------


def inverted(items):
    assert len(items) > 1, "a function of batches gets single items"
    images, labels = default_collate(items)
    return {"image": 255 - images, "label": 2 - labels}


def test_a_collate_fn_gets_the_batches_that_the_loader_makes():
    seen = []

    def collate(items):
        seen.append([int(label) for _, label in items])
        return inverted(items)

    images, labels = found(DataLoader(PAIRS, 4, collate_fn=collate))
    np.testing.assert_array_equal(images, 255 - RGB)
    assert labels == (2 - LABELS).tolist()
    assert seen == [LABELS[:4].tolist(), LABELS[4:].tolist()]


def test_a_collate_fn_may_leave_items_out_and_whole_batches():
    def collate(items):
        kept = [item for item in items if item[1] != 1]
        return default_collate(kept) if kept else None

    with pytest.warns(DiffMICWarning, match="batches or items that X yields are None"):
        images, labels = found(DataLoader(PAIRS, 2, collate_fn=collate))
    np.testing.assert_array_equal(images, RGB[LABELS != 1])
    assert labels == LABELS[LABELS != 1].tolist()


COLLATES = {
    "identity": list,
    "columns": lambda items: tuple(zip(*items, strict=True)),
    "columns of PIL images": lambda items: (
        [Image.fromarray(image.permute(1, 2, 0).numpy()) for image, _ in items],
        [int(label) for _, label in items],
    ),
    "dicts": lambda items: [{"image": image, "label": label} for image, label in items],
    "dict": lambda items: {
        "pixel_values": torch.stack([image for image, _ in items]),
        "labels": torch.tensor([label for _, label in items]),
    },
    "floats": lambda items: (torch.stack([i for i, _ in items]) / 255, [t for _, t in items]),
}


@pytest.mark.parametrize("collate", COLLATES.values(), ids=COLLATES)
@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_batches_of_every_form_are_read(collate, batch_size):
    images, labels = found(DataLoader(PAIRS, batch_size, collate_fn=collate))
    images = images if images.dtype == np.uint8 else (images * 255).round()
    np.testing.assert_array_equal(images, RGB)
    assert labels == LABELS.tolist()


def test_a_list_of_images_without_targets_is_a_batch_of_images():
    def collate(items):
        return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image, _ in items]

    stream = Stream.of(DataLoader(PAIRS, 4, collate_fn=collate))
    np.testing.assert_array_equal(torch.stack([as_image(image) for image in stream]), RGB)


def test_mixtures_of_labels_are_refused_with_the_way_out():
    def mixup(items):
        images, labels = default_collate(items)
        onehot = torch.eye(3)[labels]
        mixed = 0.7 * images / 255 + 0.3 * images.flip(0) / 255
        return mixed, 0.7 * onehot + 0.3 * onehot.flip(0)

    with pytest.raises(InputError, match=r"mixtures of labels, as CutMix or MixUp.*augment"):
        found(DataLoader(PAIRS, 4, collate_fn=mixup))


def test_batches_with_fewer_targets_than_images_are_an_error():
    loader = DataLoader(PAIRS, 4, collate_fn=lambda items: (default_collate(items)[0], [0]))
    with pytest.raises(InputError, match="Batch 0 holds 4 images and 1 targets"):
        found(loader)


def test_a_collate_fn_of_single_items_is_given_single_items():
    loader = DataLoader(PAIRS, batch_size=None, collate_fn=lambda item: (255 - item[0], 7))
    images, labels = found(loader)
    np.testing.assert_array_equal(images, 255 - RGB)
    assert labels == [7] * N
    assert not is_walked(loader)


class Inverting(DataLoader):
    def __iter__(self):
        for images, labels in super().__iter__():
            yield 255 - images, (labels > 0).long()


class Renamed(DataLoader):
    """As libraries derive from it: with another constructor, and nothing else."""


def test_a_loader_that_changes_its_batches_is_walked():
    images, labels = found(Inverting(PAIRS, 2))
    np.testing.assert_array_equal(images, 255 - RGB)
    assert labels == (LABELS > 0).tolist()
    assert not is_walked(Renamed(PAIRS, 2))
    assert_read(Renamed(PAIRS, 2, shuffle=True), EVERY)


def test_a_loader_that_iterates_by_itself_must_not_shuffle():
    with pytest.raises(InputError, match=r"Inverting that shuffles and iterates.*shuffle=False"):
        found(Inverting(PAIRS, 2, shuffle=True))


def test_a_walked_loader_leaves_the_global_generator_as_it_was():
    state = torch.get_rng_state()
    found(DataLoader(PAIRS, 4, shuffle=True, collate_fn=inverted))
    assert torch.equal(torch.get_rng_state(), state)


class Named:
    """A collate_fn of a library that stacks items."""

    def __init__(self, module, name):
        self.__module__, self.__qualname__ = module, name

    def __call__(self, items):
        return default_collate(items)


@pytest.mark.parametrize(
    "name",
    [
        ("monai.data.utils", "list_data_collate"),
        ("transformers.data.data_collator", "default_data_collator"),
    ],
)
def test_stacking_functions_of_known_libraries_are_read_by_item(name):
    loader = DataLoader(PAIRS, 2, shuffle=True, collate_fn=Named(*name))
    assert not is_walked(loader)
    assert_read(loader, EVERY)


class BatchesOfItsOwn(IterableDataset):
    def __iter__(self):
        for start in range(0, N, 3):
            yield torch.from_numpy(RGB[start : start + 3]), LABELS[start : start + 3]


@pytest.mark.parametrize(
    "wrap", [lambda data: data, lambda data: DataLoader(data, batch_size=None)]
)
def test_batches_that_an_iterable_dataset_makes_are_read(wrap):
    assert_read(wrap(BatchesOfItsOwn()), EVERY)


@pytest.mark.parametrize(
    "form",
    [tuple, list, lambda batch: {"image": batch[0], "label": batch[1]}],
    ids=["tuples", "lists", "dicts"],
)
def test_a_list_of_batches_is_read(form):
    batches = [form(batch) for batch in DataLoader(PAIRS, 3)]
    assert_read(batches, EVERY)
    np.testing.assert_array_equal(torch.stack(list(Stream.of(batches))), RGB)


@pytest.mark.parametrize("target", [1, "benign", torch.tensor(1), np.int64(1)])
def test_a_batch_with_a_single_target_is_an_error(target):
    with pytest.raises(InputError, match="Item 0 holds 7 images and a single target"):
        found([(torch.from_numpy(RGB), target)])


class Failing(IterableDataset):
    def __iter__(self):
        yield torch.from_numpy(RGB[0]), 0
        raise OSError("the share is gone")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_a_stream_raises_is_an_input_error(num_workers):
    with pytest.raises(InputError, match=r"cannot be read after . batches.*: OSError: the share"):
        found(DataLoader(Failing(), 1, num_workers=num_workers))


def test_an_index_that_does_not_exist_is_named():
    with pytest.raises(InputError, match="Item 1 of the Dataset cannot be read: IndexError"):
        found(DataLoader(PAIRS, 2, sampler=[0, 99]))


class Twice(IterableDataset):
    def __iter__(self):
        yield from ((torch.from_numpy(RGB[i]), int(LABELS[i])) for i in range(2))


def test_a_stream_gives_what_its_workers_yield():
    with pytest.warns(DiffMICWarning, match="two of the 2 workers are the same"):
        images, labels = found(DataLoader(Twice(), 1, num_workers=2))
    assert sorted(labels) == [0, 0, 2, 2]
    assert len(images) == 4


def test_a_stream_that_takes_much_memory_says_so(monkeypatch):
    monkeypatch.setattr("diffmic.data.inputs._MUCH_MEMORY", RGB[:5].nbytes)
    with pytest.warns(DiffMICWarning, match="memory.*pass the Dataset") as warned:
        found(DataLoader(PAIRS, 2, collate_fn=lambda items: default_collate(items)))
    assert len(warned) == 1


class ByKey(Dataset):
    """A map-style Dataset of keys that are no integers."""

    def __getitem__(self, key):
        return torch.from_numpy(RGB["abc".index(key)]), int(LABELS["abc".index(key)])


def test_a_sampler_may_yield_keys():
    assert_read(DataLoader(ByKey(), 2, sampler=["c", "a"]), [2, 0])


def test_a_dataset_without_a_length_is_an_error_that_says_so():
    with pytest.raises(InputError, match=r"ByKey, without __len__ or __getitem__; .*IterableData"):
        read_inputs(ByKey())


def test_a_batch_whose_images_are_pairs_is_refused_with_the_way_out():
    items = [(np.zeros((8, 8), np.uint8), n % 2) for n in range(8)]
    for collate in (lambda b: {"image": b}, lambda b: {"image": b, "label": [y for _, y in b]}):
        loader = DataLoader(items, batch_size=4, collate_fn=collate)
        with pytest.raises(InputError, match=r"Batch 0 .*pairs \(image, label\).*collate_fn"):
            read_inputs(loader, with_targets=True)
    as_pairs = DataLoader(items, batch_size=4, collate_fn=list)
    assert read_inputs(as_pairs, with_targets=True).targets.tolist() == [0, 1] * 4
