"""Worker processes have the options of the DataLoader that was passed, and alone read its items."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from diffmic.data import PreparedImages, read_inputs
from diffmic.data.inputs import survey_of
from diffmic.datasets.reading import each_image
from diffmic.errors import InputError

N = 12
IMAGES = np.random.RandomState(0).randint(0, 256, (N, 8, 8), np.uint8)


class OneFile(Dataset):
    """The idiom of torch's own documents: a file is opened when an item is first read."""

    def __init__(self, path):
        self.path, self.file = path, None
        IMAGES.tofile(path)

    def __len__(self):
        return N

    def __getitem__(self, index):
        if self.file is None:
            self.file = os.getpid(), open(self.path, "rb", buffering=0)  # noqa: SIM115
        owner, file = self.file
        assert owner == os.getpid(), "a worker has inherited an open file"
        file.seek(index * 64)
        return np.frombuffer(file.read(64), np.uint8).reshape(8, 8), index % 3


class ByInit(OneFile):
    """Its file is opened by ``worker_init_fn`` alone."""

    def __getitem__(self, index):
        assert get_worker_info().dataset is self
        assert self.file is not None, "worker_init_fn was not called"
        return super().__getitem__(index)


def opened(worker):
    data = get_worker_info().dataset
    data.file = os.getpid(), open(data.path, "rb", buffering=0)  # noqa: SIM115


def assert_reads_all(inputs):
    assert inputs.targets is None or inputs.targets.tolist() == [i % 3 for i in range(N)]
    survey = survey_of(inputs)
    assert (survey.image_shape, survey.kept) == ((1, 8, 8), list(range(N)))
    prepared = PreparedImages(inputs.images, 8)
    for _ in range(2):
        images = torch.cat([batch["image"] for batch in prepared.batches(5)])
        np.testing.assert_array_equal(images[:, 0], IMAGES)
    batches = list(prepared.loader(4, shuffle=True))
    order = torch.cat([batch["index"] for batch in batches])
    np.testing.assert_array_equal(torch.cat([b["image"] for b in batches])[:, 0], IMAGES[order])


@pytest.mark.parametrize("with_targets", [False, True])
def test_items_are_read_by_workers_alone(tmp_path, with_targets):
    data = OneFile(tmp_path / "images")
    assert_reads_all(read_inputs(DataLoader(data, 3, num_workers=2), with_targets=with_targets))
    assert data.file is None


def test_workers_of_the_estimator_read_alone_too(tmp_path):
    data = OneFile(tmp_path / "images")
    assert_reads_all(read_inputs(data, with_targets=True, num_workers=2))
    assert data.file is None


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_options_of_workers_hold(tmp_path, context, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where a new process finds ByInit
    loader = DataLoader(
        ByInit(tmp_path / "images"),
        4,
        num_workers=1,
        worker_init_fn=opened,
        multiprocessing_context=context,
        prefetch_factor=3,
        timeout=50,
    )
    inputs = read_inputs(loader, with_targets=True)
    ours = PreparedImages(inputs.images, 8).loader(4)
    assert (ours.num_workers, ours.prefetch_factor, ours.timeout) == (1, 3, 50)
    assert ours.multiprocessing_context.get_start_method() == context
    assert torch.cat([batch["image"] for batch in ours]).shape == (N, 3, 8, 8)


def test_workers_of_a_collate_fn_of_its_own_are_those_of_the_loader(tmp_path):
    loader = DataLoader(
        ByInit(tmp_path / "images"),
        4,
        shuffle=True,
        num_workers=1,
        worker_init_fn=opened,
        collate_fn=lambda items: ([image for image, _ in items], [label for _, label in items]),
    )
    assert_reads_all(read_inputs(loader, with_targets=True))


def test_inspection_leaves_items_to_workers(tmp_path):
    data = OneFile(tmp_path / "images")
    found = list(each_image(DataLoader(data, 4, num_workers=2)))
    assert [one.label for one in found] == [i % 3 for i in range(N)]
    np.testing.assert_array_equal(torch.cat([one.image for one in found]), IMAGES)
    assert data.file is None


class Many(Dataset):
    """Many items, whose labels are tensors."""

    def __len__(self):
        return 300

    def __getitem__(self, index):
        return torch.full((1, 4, 4), index % 256, dtype=torch.uint8), torch.tensor(index % 3)


@pytest.mark.parametrize("collate", [None, lambda items: default_collate(items)])
def test_what_workers_send_does_not_keep_files_open(collate):
    folder = "/proc/self/fd"
    if not os.path.isdir(folder):
        pytest.skip("open files cannot be counted")
    before = len(os.listdir(folder))
    inputs = read_inputs(
        DataLoader(Many(), 2, num_workers=1, collate_fn=collate), with_targets=True
    )
    assert inputs.targets.tolist() == [i % 3 for i in range(300)]
    assert [int(inputs.images[i].max()) for i in range(300)] == [i % 256 for i in range(300)]
    assert len(os.listdir(folder)) < before + 20


class Damaged(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        if index == 7:
            raise OSError("truncated")
        return IMAGES[index], index % 3


def test_an_error_in_a_worker_is_raised_as_it_is():
    loader = DataLoader(Damaged(), 4, num_workers=2)
    inputs = read_inputs(loader)
    for read in (
        lambda: survey_of(inputs),
        lambda: read_inputs(loader, with_targets=True),
        lambda: list(PreparedImages(inputs.images, 8).batches(4)),
    ):
        with pytest.raises(InputError, match=r"^Item 7 of the Dataset cannot be read: .*truncat"):
            read()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_image_can_be_left_out_by_workers(num_workers):
    loader = DataLoader(Damaged(), 4, num_workers=num_workers)
    inputs = read_inputs(loader, with_targets=True, skip=True)
    assert inputs.survey.kept == [i for i in range(N) if i != 7]
    assert "truncated" in inputs.survey.failed[7]
    assert inputs.targets.tolist() == [i % 3 for i in range(N) if i != 7]


def test_a_loader_without_workers_gets_none():
    images = read_inputs(DataLoader(Damaged(), 4)).images
    assert PreparedImages(images, 8).loader(4, num_workers=3).num_workers == 0


class Dying(Dataset):
    """An item ends the worker that reads it, or keeps it waiting."""

    def __init__(self, how):
        self.how = how
        if how == "lock":
            self.lock = threading.Lock()

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if get_worker_info() is not None and index == 4:
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return torch.zeros(1, 4, 4), index % 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "options", "told"),
    [
        ("killed", {}, "A worker process that reads images ended.*num_workers=0"),
        ("late", {"timeout": 2}, "did not answer for 2 seconds"),
        ("lock", {"multiprocessing_context": "spawn"}, "cannot be sent to worker processes"),
    ],
)
def test_workers_that_end_wait_or_do_not_start_are_explained(how, options, told):
    loader = DataLoader(Dying(how), 2, num_workers=1, **options)
    with pytest.raises(InputError, match=told):
        read_inputs(loader, with_targets=True)
