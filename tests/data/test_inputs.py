"""Every kind of X that is accepted gives the same images, and the targets that came along."""

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from diffmic.data import read_inputs
from diffmic.data.inputs import holds_targets, survey_of
from diffmic.errors import InputError

N, H, W = 5, 6, 10
RGB = np.random.RandomState(0).randint(0, 256, (N, 3, H, W), np.uint8)
GRAY = RGB[:, 0]
LABELS = np.array([2, 0, 1, 1, 2])


class Pairs(Dataset):
    """A map-style Dataset of whatever ``form`` makes of an image and a label."""

    def __init__(self, form=lambda image, label: (image, label)):
        self.form = form

    def __len__(self):
        return N

    def __getitem__(self, index):
        return self.form(torch.from_numpy(RGB[index]), int(LABELS[index]))


class Vision(Pairs):
    """Like torchvision's: ``targets``, and transforms of targets."""

    def __init__(self, target_transform=None):
        super().__init__()
        self.targets = LABELS.tolist()
        self.target_transform = target_transform
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        image, label = super().__getitem__(index)
        return image, self.target_transform(label) if self.target_transform else label


class Stream(IterableDataset):
    def __init__(self, form=lambda image, label: (image, label)):
        self.form = form

    def __iter__(self):
        for image, label in zip(RGB, LABELS, strict=True):
            yield self.form(torch.from_numpy(image), int(label))


def pil_image(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def pixels(inputs):
    """All images of the inputs as one uint8 array."""
    images = torch.stack([inputs.images[i] for i in range(len(inputs.images))])
    if images.is_floating_point():
        assert images.min() >= 0
        assert images.max() <= 1
        images = (images * 255).round().to(torch.uint8)
    return images.numpy()


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(N)]
    for path, image in zip(paths, RGB, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    return paths


@pytest.mark.parametrize("kind", [np.asarray, lambda x: torch.from_numpy(x)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("layout", ["channels first", "channels last"])
def test_arrays_and_tensors_of_colour_images_are_read(kind, dtype, layout):
    images = RGB if dtype == "uint8" else (RGB / 255).astype(dtype)
    images = images if layout == "channels first" else images.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(pixels(read_inputs(kind(images))), RGB)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(N, H, W), (N, 1, H, W), (N, H, W, 1)])
def test_arrays_of_gray_images_are_read_with_or_without_a_channel(dtype, shape):
    images = GRAY if dtype == np.uint8 else (GRAY / 255).astype(dtype)
    np.testing.assert_array_equal(pixels(read_inputs(images.reshape(shape)))[:, 0], GRAY)


def test_uint8_is_neither_copied_nor_converted():
    source = read_inputs(RGB).images
    assert np.shares_memory(source[0].numpy(), RGB)


@pytest.mark.parametrize(
    "form",
    [
        lambda paths: [str(path) for path in paths],
        lambda paths: paths,
        tuple,
        lambda paths: np.array([str(path) for path in paths]),
        lambda paths: np.array(paths, dtype=object),
        lambda paths: np.array([str(path) for path in paths], dtype=np.dtypes.StringDType()),
    ],
    ids=["str", "Path", "tuple", "array of str", "array of Path", "array of StringDType"],
)
def test_lists_and_arrays_of_paths_are_read(files, form):
    np.testing.assert_array_equal(pixels(read_inputs(form(files))), RGB)


def test_a_pandas_column_of_paths_is_read(files):
    frame = pandas.DataFrame({"file": [str(path) for path in files]}, index=range(10, 10 + N))
    np.testing.assert_array_equal(pixels(read_inputs(frame["file"])), RGB)


def test_files_are_decoded_when_they_are_used_and_not_before(files, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "diffmic.data.sources.as_image",
        lambda path, **options: decoded.append(path) or torch.zeros(1, 1, 1),
    )
    inputs = read_inputs(files)
    assert decoded == []
    inputs.images[3]
    assert decoded == [files[3]]


def test_lists_of_pil_images_of_several_modes_and_sizes_are_read():
    modes = ["L", "RGB", "RGBA", "P", "1", "I;16", "LA", "CMYK"]
    images = [Image.new("L", (8 + i, 5 + i)).convert(mode) for i, mode in enumerate(modes)]
    source = read_inputs(images).images
    shapes = [tuple(source[i].shape) for i in range(len(source))]
    channels = [1, 3, 3, 3, 1, 1, 1, 3]
    assert shapes == [(c, 5 + i, 8 + i) for i, c in enumerate(channels)]


@pytest.mark.parametrize("form", [torch.from_numpy, np.asarray, lambda i: i.transpose(1, 2, 0)])
def test_lists_of_arrays_and_tensors_are_read(form):
    np.testing.assert_array_equal(pixels(read_inputs([form(image) for image in RGB])), RGB)


def test_an_object_array_of_images_of_several_sizes_is_read():
    images = np.empty(2, dtype=object)
    images[:] = [np.zeros((4, 5)), np.zeros((6, 7))]
    source = read_inputs(images).images
    assert [tuple(source[i].shape) for i in range(2)] == [(1, 4, 5), (1, 6, 7)]


def test_a_list_may_mix_paths_and_images(files):
    np.testing.assert_array_equal(pixels(read_inputs([files[0], RGB[1]])), RGB[:2])


DATASETS = {
    "pairs": Pairs(),
    "dicts": Pairs(lambda image, label: {"image": image, "label": label}),
    "dicts of other names": Pairs(lambda image, label: {"images": image, "target": label}),
    "PIL images": Pairs(lambda image, label: (pil_image(image), label)),
    "floats": Pairs(lambda image, label: (image / 255, label)),
    "tensor labels": Pairs(lambda image, label: (image, torch.tensor(label))),
    "string labels": Pairs(lambda image, label: (image, str(label))),
    "triples": Pairs(lambda image, label: (image, label, "patient")),
    "lists": Pairs(lambda image, label: [image, label]),
    "vision": Vision(),
    "tensors": TensorDataset(torch.from_numpy(RGB), torch.from_numpy(LABELS)),
    "subset": Subset(Subset(Vision(), [4, 3, 2, 1, 0]), [4, 3, 2, 1, 0]),
    "concatenated": ConcatDataset([Subset(Pairs(), [0, 1]), Subset(Pairs(), [2, 3, 4])]),
    "a list of pairs": [(torch.from_numpy(i), int(t)) for i, t in zip(RGB, LABELS, strict=True)],
    "a list of lists": [[i, int(t)] for i, t in zip(RGB, LABELS, strict=True)],
    "a list of dicts": [{"image": i, "label": t} for i, t in zip(RGB, LABELS, strict=True)],
}


@pytest.fixture(params=DATASETS)
def dataset(request):
    return DATASETS[request.param]


def test_a_dataset_gives_images_and_targets(dataset):
    inputs = read_inputs(dataset, with_targets=True)
    np.testing.assert_array_equal(pixels(inputs), RGB)
    assert inputs.targets.astype(int).tolist() == LABELS.tolist()
    assert holds_targets(dataset)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_gives_its_dataset_in_the_datasets_order(dataset, shuffle):
    inputs = read_inputs(DataLoader(dataset, batch_size=2, shuffle=shuffle), with_targets=True)
    np.testing.assert_array_equal(pixels(inputs), RGB)
    assert inputs.targets.astype(int).tolist() == LABELS.tolist()
    assert inputs.batch_size == 2


@pytest.mark.parametrize(
    "form",
    [
        lambda image, label: (image, label),
        lambda image, label: {"image": image, "label": label},
        lambda image, label: (image, str(label)),
    ],
    ids=["pairs", "dicts", "string labels"],
)
@pytest.mark.parametrize("batch_size", [None, 2, "no loader"])
def test_a_stream_is_read_once_with_its_targets(form, batch_size):
    stream = Stream(form)
    X = stream if batch_size == "no loader" else DataLoader(stream, batch_size=batch_size)
    inputs = read_inputs(X, with_targets=True)
    np.testing.assert_array_equal(pixels(inputs), RGB)
    assert inputs.targets.astype(int).tolist() == LABELS.tolist()
    assert inputs.batch_size == (2 if batch_size == 2 else None)
    assert holds_targets(X)


def test_a_stream_of_pil_images_is_read():
    X = Stream(lambda image, label: (pil_image(image), label))
    np.testing.assert_array_equal(pixels(read_inputs(X)), RGB)


def test_indicator_targets_of_a_dataset_are_a_matrix():
    X = Pairs(lambda image, label: (image, torch.eye(3)[label]))
    np.testing.assert_array_equal(read_inputs(X, with_targets=True).targets, np.eye(3)[LABELS])


@pytest.mark.parametrize("wrap", [lambda data: data, DataLoader])
@pytest.mark.parametrize("subset", [lambda data: data, lambda data: Subset(data, range(N))])
@pytest.mark.parametrize("stated", [[0] * N, LABELS[::-1].tolist(), [0] * 99, 7])
def test_labels_are_those_of_the_items_whatever_a_dataset_states_beside_them(wrap, subset, stated):
    data = Vision(target_transform=lambda label: label % 2)
    data.targets = data.labels = data.classes = stated
    inputs = read_inputs(wrap(subset(data)), with_targets=True)
    assert inputs.targets.tolist() == (LABELS % 2).tolist()
    assert data.read == list(range(N))


@pytest.mark.parametrize("subset", [lambda data: data, lambda data: Subset(data, [4, 0, 2])])
def test_labels_of_a_subclass_are_those_of_its_items(subset):
    class Turned(TensorDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image, 2 - label

    class TurnedSubset(Subset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image, label + 5

        def __getitems__(self, indices):
            return [self[index] for index in indices]

    tensors = torch.from_numpy(RGB), torch.from_numpy(LABELS)
    chosen = LABELS[list(subset(range(N)))]
    data = subset(Turned(*tensors))
    assert read_inputs(data, with_targets=True).targets.tolist() == (2 - chosen).tolist()
    data = TurnedSubset(TensorDataset(*tensors), [3, 1])
    assert read_inputs(data, with_targets=True).targets.tolist() == (LABELS[[3, 1]] + 5).tolist()


def test_targets_are_left_alone_where_they_are_not_wanted(dataset):
    assert read_inputs(dataset).targets is None


@pytest.mark.parametrize(
    "X",
    [
        Pairs(lambda image, label: image),
        Pairs(lambda image, label: (image,)),
        Pairs(lambda image, label: {"image": image}),
        DataLoader(Pairs(lambda image, label: image)),
        Stream(lambda image, label: image),
        DataLoader(Stream(lambda image, label: image), batch_size=2),
    ],
    ids=["image", "tuple of one", "dict", "loader", "stream", "loader of a stream"],
)
def test_images_without_targets_can_be_read_but_not_with_targets(X):
    np.testing.assert_array_equal(pixels(read_inputs(X)), RGB)
    with pytest.raises(InputError, match=r"fit needs \(image, target\) pairs.*or y"):
        read_inputs(X, with_targets=True)


@pytest.mark.parametrize("X", [Pairs, Stream])
def test_targets_of_different_shapes_are_an_error(X):
    data = X(lambda image, label: (image, torch.zeros(label + 1)))
    with pytest.raises(InputError, match="targets have different shapes"):
        read_inputs(data, with_targets=True)


def test_a_dict_without_images_is_an_error_that_names_its_keys():
    data = Pairs(lambda image, label: {"scan": image, "label": label})
    with pytest.raises(InputError, match=r"keys \['label', 'scan'\].*image_key="):
        read_inputs(data, with_targets=True)


@pytest.mark.parametrize(
    "X",
    [
        [],
        (),
        np.zeros((0, 3, 4, 4), np.uint8),
        torch.zeros(0, 4, 4),
        np.array([], dtype=object),
        Subset(Pairs(), []),
        TensorDataset(torch.zeros(0, 3, 4, 4)),
        DataLoader([]),
        DataLoader(torch.utils.data.ChainDataset([])),
    ],
    ids=lambda X: type(X).__name__,
)
@pytest.mark.parametrize("with_targets", [False, True])
def test_an_empty_set_is_an_error(X, with_targets):
    with pytest.raises(InputError, match="X holds no images"):
        read_inputs(X, with_targets=with_targets)


@pytest.mark.parametrize("known_channels", [1, 3])
def test_a_single_colour_or_gray_array_is_a_batch_of_one_when_predicting(known_channels):
    image = RGB[0] if known_channels == 3 else GRAY[0]
    np.testing.assert_array_equal(
        pixels(read_inputs(image, known_channels=known_channels))[0], image.reshape(-1, H, W)
    )


def test_a_single_channels_last_image_is_a_batch_of_one_when_predicting():
    inputs = read_inputs(RGB[0].transpose(1, 2, 0), known_channels=3)
    np.testing.assert_array_equal(pixels(inputs), RGB[:1])


def test_a_single_gray_image_is_a_batch_of_one_for_a_gray_model():
    np.testing.assert_array_equal(pixels(read_inputs(GRAY[0], known_channels=1))[0, 0], GRAY[0])


@pytest.mark.parametrize("known_channels", [1, 3])
def test_an_array_of_two_dimensions_is_one_gray_image_when_predicting(known_channels):
    found = pixels(read_inputs(GRAY[0], known_channels=known_channels))
    np.testing.assert_array_equal(found, GRAY[:1, None])


@pytest.mark.parametrize("known_channels", [1, 3])
def test_channels_last_means_one_image_when_predicting(known_channels):
    found = pixels(read_inputs(np.moveaxis(RGB[0], 0, 2), known_channels=known_channels))
    np.testing.assert_array_equal(found, RGB[:1])


def test_three_dimensions_mean_gray_images_for_a_model_of_gray_ones():
    found = pixels(read_inputs(GRAY[:3], known_channels=1))
    np.testing.assert_array_equal(found, GRAY[:3, None])


def test_gray_images_without_channels_are_refused_by_a_colour_model():
    with pytest.raises(InputError, match=r"no colour image.*pass X\[:, None\]"):
        read_inputs(GRAY, known_channels=3)
    np.testing.assert_array_equal(pixels(read_inputs(GRAY[:, None], known_channels=3))[:, 0], GRAY)


def test_targets_and_images_of_items_are_read_in_one_pass():
    class Counted(Pairs):
        n_read = 0

        def __getitem__(self, index):
            self.n_read += 1
            return super().__getitem__(index)

    data = Counted()
    inputs = read_inputs(data, with_targets=True)
    assert survey_of(inputs).image_shape == (3, H, W)
    assert inputs.targets.tolist() == LABELS.tolist()
    assert data.n_read == N


@pytest.mark.parametrize("kind", [lambda x: x, list], ids=["array", "list"])
def test_the_survey_says_what_the_largest_float_pixel_is(kind):
    images = np.zeros((3, 4, 5), np.float32)
    images[1, 2, 3] = 0.25
    assert survey_of(read_inputs(kind(images))).largest == 0.25
    assert survey_of(read_inputs(kind(GRAY))).largest is None


def test_every_image_can_be_checked_before_any_work():
    class Items(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return np.full((4, 4), np.nan if index == 3 else 0.5)

    inputs = read_inputs(Items())
    with pytest.raises(InputError, match="NaN or infinite, first in image 3"):
        survey_of(inputs)


@pytest.mark.parametrize("form", [str, lambda path: path, Image.open])
def test_a_single_path_or_pil_image_is_a_batch_of_one_when_predicting(files, form):
    np.testing.assert_array_equal(pixels(read_inputs(form(files[0]), known_channels=3)), RGB[:1])


@pytest.mark.parametrize("X", ["scans/", Image.new("L", (4, 4))])
def test_a_single_path_or_pil_image_is_an_error_when_fitting(X):
    with pytest.raises(InputError, match=r"X is one image, .*give a list"):
        read_inputs(X)


@pytest.mark.parametrize("X", [None, 3, {1, 2}, lambda: 0, object()])
def test_another_kind_of_x_is_an_error_that_names_it(X):
    with pytest.raises(InputError, match=f"X is a {type(X).__name__}; give an array"):
        read_inputs(X)


def test_a_table_is_an_error_that_names_its_columns():
    with pytest.raises(
        InputError, match=r"table with the columns \['file', 'label'\]; give the col"
    ):
        read_inputs(pandas.DataFrame({"file": ["a.png"], "label": [0]}), known_channels=3)


@pytest.mark.parametrize("shape", [(N,), (N, H), (N, 1, 3, H, W)])
def test_an_array_of_another_number_of_dimensions_is_an_error(shape):
    with pytest.raises(InputError, match=rf"dim {len(shape)}: shape \(.*Reshape your data"):
        read_inputs(np.zeros(shape))


@pytest.mark.parametrize("bad", [2.0, -1.0, np.nan])
@pytest.mark.parametrize(
    "form", [list, np.asarray, lambda images: TensorDataset(torch.tensor(images))]
)
def test_pixels_out_of_range_are_an_error_before_any_work(bad, form):
    images = np.zeros((N, H, W))
    images[0, 2, 3] = bad
    with pytest.raises(InputError, match=r"0–1|NaN"):
        survey_of(read_inputs(form(images)))


def test_an_image_of_a_list_that_cannot_be_used_is_named():
    with pytest.raises(InputError, match="image 1 is a float"):
        read_inputs([GRAY[0], float("nan")])
