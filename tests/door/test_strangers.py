"""What strangers passed that was read otherwise than they meant, or refused with a wrong reason."""

from enum import Enum

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import stripes
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from diffmic.data.columns import as_array
from diffmic.data.files import read_content
from diffmic.data.images import as_image
from diffmic.data.inputs import read_inputs
from diffmic.data.items import split_item
from diffmic.data.reading import Reading
from diffmic.data.targets import TargetEncoding
from diffmic.data.weights import sample_weights
from diffmic.errors import DiffMICWarning, InputError
from diffmic.estimator.exporting import _target

X, Y = stripes(24)


class Finding(str, Enum):  # noqa: UP042
    """Strings, whose text of their own is another: numpy takes that, and cuts it off."""

    BENIGN = "benign"
    MALIGNANT = "malignant"


@pytest.mark.parametrize("kind", [list, tuple, lambda y: [np.asarray(v, object) for v in y]])
def test_members_of_an_enumeration_of_strings_are_their_values(kind):
    labels = [[*Finding][i % 2] for i in range(8)]
    assert TargetEncoding.learn(kind(labels)).classes.tolist() == ["benign", "malignant"]
    assert as_array(Finding.BENIGN, "target")[()] == "benign"


def test_lists_of_labels_of_different_lengths_are_several_labels():
    with pytest.raises(InputError, match="MultiLabelBinarizer"):
        TargetEncoding.learn([[0], [0, 1], [1], [2, 1]])


def test_labels_without_values_are_refused():
    with pytest.raises(InputError, match=r"y cannot be converted.*meta"):
        TargetEncoding.learn(torch.zeros(4, device="meta"))


@pytest.mark.parametrize("dtype", [">u2", "<u2", ">u1"])
def test_bytes_in_another_order_are_the_same_numbers(dtype):
    values = X[:2].astype(dtype)
    plain = values.astype(values.dtype.newbyteorder("="))
    found, expected = read_inputs(values).images, read_inputs(plain).images
    assert torch.equal(found[1], expected[1])
    assert torch.equal(as_image(values[0]), as_image(plain[0]))
    with pytest.raises(InputError, match=r"type int16.*value_range"):
        as_image(values[0].astype(">i2"))
    with pytest.raises(InputError, match="type complex64"):
        as_image(values[0].astype(">c8"))


def test_a_tensor_without_values_is_named():
    with pytest.raises(InputError, match="image 1 is a tensor on the device 'meta'"):
        read_inputs([torch.zeros(8, 8), torch.zeros(8, 8, device="meta")]).images.read(1, Reading())


@pytest.mark.parametrize(
    "weights",
    [np.ones(3) * 1j, np.ones(3, "M8[D]"), np.ones(3, "m8[s]"), np.array([1, 1e308, 1])],
    ids=["complex", "dates", "spans", "huge"],
)
def test_weights_that_are_no_plain_numbers_are_refused(weights):
    with pytest.raises(InputError, match="sample_weight"):
        sample_weights(weights, 3)


def test_a_missing_target_is_told_from_a_missing_entry():
    with pytest.raises(InputError, match="has no target, but 2 entries, whose second is None"):
        split_item((X[0], None), with_target=True, name="Item 4")


class Everything(IterableDataset):
    def __iter__(self):
        yield from zip(torch.from_numpy(X.copy()), Y.tolist(), strict=True)


class Shared(IterableDataset):
    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        yield from list(Everything())[worker.id :: worker.num_workers]


@pytest.mark.parametrize("batch_size", [4, None])
def test_workers_that_all_yield_everything_are_pointed_out(batch_size, recwarn):
    loader = DataLoader(Everything(), batch_size, num_workers=2)
    with pytest.warns(DiffMICWarning, match="two of the 2 workers are the same"):
        assert len(read_inputs(loader, with_targets=True).images) == 48
    recwarn.clear()
    shared = DataLoader(Shared(), batch_size, num_workers=2)
    assert len(read_inputs(shared, with_targets=True).images) == 24
    assert not [w for w in recwarn if issubclass(w.category, DiffMICWarning)]


def test_batches_that_are_none_are_counted():
    def some(items):
        return None if items[0][1] == 1 else torch.utils.data.default_collate(items)

    data = TensorDataset(torch.from_numpy(X.copy()), torch.from_numpy(Y))
    loader = DataLoader(data, 1, collate_fn=some)
    with pytest.warns(DiffMICWarning, match="8 of 24 batches or items that X yields are None"):
        assert len(read_inputs(loader, with_targets=True).images) == 16


@pytest.mark.parametrize("kind", [Dataset, Everything, dict])
def test_a_class_in_the_place_of_an_object_is_refused(kind):
    with pytest.raises(InputError, match="X is a"):
        read_inputs(kind)


def test_a_damaged_jpeg_2000_is_called_damaged(tmp_path):
    Image.fromarray(X[0]).save(tmp_path / "a.jp2")
    content = (tmp_path / "a.jp2").read_bytes()
    with pytest.raises(InputError, match="damaged or incomplete"):
        read_content(content[: len(content) // 2], "image 0", Reading())


@pytest.mark.parametrize("path", [None, 3, b"model.onnx"])
def test_exports_need_a_path(path):
    with pytest.raises(InputError, match="path is"):
        _target(path)
