"""Labels: every image keeps its own, in any container, or they are refused."""

import warnings

import numpy as np
import pandas
import pytest
import torch
from door.arrays import examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from diffmic.data import TargetEncoding, read_training_data
from diffmic.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
many = examples(50)

INTEGERS = st.integers(-(2**62), 2**62)
WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=4).filter(
    lambda word: word.casefold() not in ("nan", "<na>", "nat", "none") and "\0" not in word
)
CLASSES = st.one_of(
    st.lists(INTEGERS, min_size=2, max_size=5, unique=True),
    st.lists(WORDS, min_size=2, max_size=5, unique=True),
    st.just([False, True]),
    st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=5, unique=True),
)


def objects(entries):
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array


CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "array": np.asarray,
    "column": lambda y: np.asarray(y)[:, None],
    "objects": objects,
    "series": pandas.Series,
    "category": lambda y: pandas.Series(y, dtype="category"),
    "index": lambda y: pandas.Index(y),
}


@st.composite
def labels(draw):
    """Labels of two or more classes, all of which occur."""
    classes = draw(CLASSES)
    more = draw(st.lists(st.sampled_from(classes), max_size=8))
    return draw(st.permutations([*classes, *more]))


def assert_encoded(y, given, **options):
    encoding, rows = TargetEncoding.learn_and_encode(given, **options)
    assert rows.dtype == np.float32
    assert rows.shape == (len(y), len(set(y)))
    assert (rows.sum(axis=1) == 1).all()
    assert encoding.classes[rows.argmax(axis=1)].tolist() == list(y)
    assert encoding.classes.tolist() == sorted(set(y))
    np.testing.assert_array_equal(encoding.encode(given), rows)


@pytest.mark.parametrize("container", list(CONTAINERS))
@many
@given(labels())
def test_each_image_keeps_its_label(container, y):
    assert_encoded(y, CONTAINERS[container](y))


@many
@given(labels().filter(lambda y: not isinstance(y[0], str)), st.booleans())
def test_labels_in_tensors_are_kept(y, column):
    tensor = torch.tensor(y, dtype=torch.float64 if isinstance(y[0], float) else None)
    assert_encoded(y, tensor[:, None] if column else tensor)


@many
@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=8).filter(lambda y: len(set(y)) > 1),
    st.sampled_from(["uint8", "int8", "uint16", ">i4", "int64", "uint64", "float16", "float64"]),
)
def test_numbers_of_any_type_are_kept(y, dtype):
    assert_encoded(y, np.asarray(y, dtype=dtype))


@many
@given(
    st.lists(
        st.one_of(
            INTEGERS, WORDS, st.none(), st.floats(), st.booleans(), st.binary(max_size=2),
            st.just(pandas.NA), st.just(np.datetime64("NaT")), st.lists(st.integers(0, 1)),
            st.just({}), st.just(1j), st.just(np.int64(3)), st.just(np.str_("a")),
        ),
        max_size=6,
    ),
    st.sampled_from(["list", "tuple", "objects"]),
)  # fmt: skip
def test_any_list_is_encoded_rightly_or_refused(y, container):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            encoding, rows = TargetEncoding.learn_and_encode(CONTAINERS[container](y))
        except InputError:
            return
    assert len(rows) == len(y)
    if rows.shape[1] and encoding.task.exclusive:
        for label, known in zip(y, encoding.classes[rows.argmax(axis=1)].tolist(), strict=True):
            label = label[0] if isinstance(label, list) else label
            label = label.decode() if isinstance(label, bytes) and isinstance(known, str) else label
            assert label == known, (y, encoding.classes)


@many
@given(
    arrays.arrays(
        dtype=st.sampled_from(["int64", "float64", "bool", "uint8", "float32"]),
        shape=arrays.array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements=st.integers(0, 1),
    ),
    st.sampled_from(["array", "lists", "tensor", "frame", "fortran"]),
)
def test_an_indicator_matrix_is_kept_as_it_is(y, container):
    given = {
        "array": y,
        "lists": y.tolist(),
        "tensor": torch.from_numpy(y),
        "frame": pandas.DataFrame(y),
        "fortran": np.asfortranarray(y),
    }[container]
    if y.shape[1] == 1:
        return  # labels (n, 1) are one label per image
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            encoding, rows = TargetEncoding.learn_and_encode(given)
        except InputError:
            refused = True
        else:
            refused = False
    if refused:
        assert not y.any(axis=0).all() or y.all(axis=0).any()  # nothing to learn of some label
        return
    assert not encoding.task.exclusive
    np.testing.assert_array_equal(rows, y.astype(np.float32))


@st.composite
def data_sets(draw):
    """Images whose pixels say which they are, with labels, groups and weights."""
    n = draw(st.integers(1, 30))
    multilabel = draw(st.booleans())
    integers = st.integers(0, 2)
    if multilabel:
        y = np.array(draw(st.lists(st.tuples(integers, integers), min_size=n, max_size=n))) % 2
    else:
        y = np.array(draw(st.lists(integers, min_size=n, max_size=n)))
    groups = draw(st.none() | st.lists(st.integers(0, 9), min_size=n, max_size=n))
    weights = draw(st.none() | st.lists(st.floats(0, 5), min_size=n, max_size=n))
    fraction = draw(st.none() | st.floats(0.05, 0.9))
    return y, groups, weights, fraction


@many
@given(data_sets())
def test_a_split_keeps_images_labels_weights_and_groups_together(given):
    y, groups, weights, fraction = given
    X = np.tile(np.arange(len(y), dtype=np.uint8)[:, None, None], (1, 2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = read_training_data(
                X,
                y,
                sample_weight=weights,
                groups=groups,
                validation_data=None,
                validation_fraction=fraction,
                class_weight=None,
                rng=np.random.RandomState(0),
            )
        except InputError:
            return
    rows = TargetEncoding.learn_and_encode(y)[1]
    parts = [part for part in (data.training, data.validation) if part is not None]
    numbers = []
    for part in parts:
        mine = [int(part.images[index].max()) for index in range(len(part))]
        np.testing.assert_array_equal(part.targets.numpy(), rows[mine])
        if weights is not None:
            scale = part.weights.numpy() / np.maximum(np.asarray(weights)[mine], 1e-12)
            used = np.asarray(weights)[mine] > 1e-6
            np.testing.assert_allclose(scale[used], scale[used][:1].repeat(used.sum()), rtol=1e-3)
        numbers.append(mine)
    everyone = [number for mine in numbers for number in mine]
    assert len(everyone) == len(set(everyone))
    if weights is None:
        assert sorted(everyone) == list(range(len(y)))
    if groups is not None and len(parts) == 2:
        sides = [{groups[number] for number in mine} for mine in numbers]
        assert not sides[0] & sides[1]
