"""Inspection of images and labels: damage, copies, leaks, rare classes."""

import io
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from PIL import Image, ImageEnhance
from tiny import stripes
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from diffmic.data import read_training_data
from diffmic.datasets import ImageTable, inspect, make_lesions, read_csv, read_folders
from diffmic.datasets.duplicates import perceptual_hashes, similar_sets
from diffmic.errors import InputError


def look(X, y=None, **options):
    return inspect(X, y, verbose=0, **options)


@pytest.fixture(scope="module")
def lesions():
    return make_lesions(24, image_size=96, random_state=0)


def pictures(lesions):
    return [Image.fromarray(image) for image in lesions[0]]


def compressed(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(io.BytesIO(file.getvalue()))


CHANGES = {
    "compressed": compressed,
    "half the size": lambda image: image.resize((48, 48)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "in colour": lambda image: image.convert("RGB"),
    "of 16 bits": lambda image: np.asarray(image, dtype=np.float32) / 4095,
    **{turn.name: lambda image, turn=turn: image.transpose(turn) for turn in Image.Transpose},
}


def test_nothing_is_found_where_nothing_is_wrong(lesions):
    found = look(*lesions)
    assert found.problems == []
    assert found.verdict == "No problem was found in 24 images."
    assert found.counts == {"images": {"0": 8, "1": 8, "2": 8}}
    assert found.sizes == {(96, 96): 24}
    assert found.pixels == {"gray, 8 bits": (24, 0, 255)}
    assert found.near_duplicates == []
    assert found.groups.tolist() == list(range(24))


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_changed_copy_looks_alike(lesions, change):
    images = pictures(lesions)
    images.append(CHANGES[change](images[5]))
    found = look(images, [*lesions[1], lesions[1][5]])
    assert [*found.near_duplicates, *found.duplicates] == [(5, 24)]
    assert found.groups[5] == found.groups[24]
    assert len(set(found.groups.tolist())) == 24
    assert "groups=inspection.groups" in found.verdict


def test_equal_pixels_are_copies_whatever_file_they_are_in(tmp_path, lesions):
    image = pictures(lesions)[0]
    for name in ("a.png", "b.bmp", "c.tif"):
        image.save(tmp_path / name)
    Image.fromarray(lesions[0][1]).save(tmp_path / "d.png")
    found = look([tmp_path / name for name in ("a.png", "d.png", "b.bmp", "c.tif")])
    assert found.duplicates == [(0, 2, 3)]
    assert found.near_duplicates == []
    assert found.names[1] == str(tmp_path / "d.png")


def test_copies_with_different_labels_are_conflicts(lesions):
    X, y = lesions[0].copy(), lesions[1]
    other = int(np.flatnonzero(y != y[3])[0])
    X[other] = X[3]
    found = look(X, y)
    assert found.conflicts == [tuple(sorted((3, other)))]
    assert "1 set(s) of copies have different labels" in found.verdict


def test_copies_in_two_splits_are_leaks(lesions):
    X, y = lesions
    turned = np.ascontiguousarray(np.rot90(X[2])[None])
    found = look(X, y, validation_data=(np.concatenate([X[:1], turned]), [y[0], y[2]]))
    assert found.leaks == [(0, 24), (2, 25)]
    assert found.splits.tolist() == ["training"] * 24 + ["validation"] * 2
    assert found.names[24] == "validation image 0"
    assert found.problems[0].startswith("2 set(s) of copies lie in several splits")
    assert len(found.groups) == 24


def test_a_patient_in_two_splits_is_found(lesions):
    X, y = lesions
    found = look(
        X[:16],
        y[:16],
        groups=[f"P{i // 2}" for i in range(16)],
        validation_data=(X[16:], y[16:]),
        validation_groups=["P0", "P1", *(f"Q{i}" for i in range(6))],
    )
    assert found.shared_groups == ["P0", "P1"]
    assert "2 group(s) have images in several splits (P0, P1)" in found.verdict
    assert len(set(found.groups.tolist())) == 8


def test_a_table_brings_labels_splits_and_groups(tmp_path, lesions):
    rows = ["file,label,split,patient"]
    for i, image in enumerate(pictures(lesions)):
        image.save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{lesions[1][i]},{'test' if i > 18 else 'train'},P{i // 4}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    found = look(read_csv(tmp_path / "labels.csv", group="patient"))
    assert set(found.counts) == {"train", "test"}
    assert found.shared_groups == ["P4"]


def test_damaged_images_are_counted_named_and_left_out(tmp_path, lesions):
    for i, image in enumerate(pictures(lesions)):
        (tmp_path / str(i % 2)).mkdir(exist_ok=True)
        image.save(tmp_path / str(i % 2) / f"{i:02}.png")
    for name in ("0/04.png", "1/07.png"):
        file = tmp_path / name
        file.write_bytes(file.read_bytes()[:200])
    table = read_folders(tmp_path)
    found = look(table)
    assert [table.paths[number].name for number in found.damaged] == ["04.png", "07.png"]
    assert found.problems[0].startswith("2 image(s) cannot be used (0/04.png, 1/07.png)")
    assert found.sizes == {(96, 96): 22}
    assert found.counts == {"images": {"0": 12, "1": 12}}


def test_every_image_damaged_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"None of the 1 images can be used\. The first: .*a\.png"):
        look([tmp_path / "a.png"])


class Faulty(Dataset):
    """Items of a Dataset, one of which raises."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        if index == 3:
            raise RuntimeError("lost")
        return torch.from_numpy(self.X[index])[None], int(self.y[index])


def test_items_of_a_dataset_and_their_labels_are_read_once(lesions):
    found = look(Faulty(*lesions))
    assert found.damaged == {3: "RuntimeError: lost"}
    assert sum(found.counts["images"].values()) == 23


def test_loaders_and_streams_are_read(lesions):
    X, y = (torch.from_numpy(part) for part in lesions)
    data = TensorDataset(X[:, None], y)

    class Streamed(IterableDataset):
        def __iter__(self):
            return iter(data)

    for source in (DataLoader(data, batch_size=5, shuffle=True), Streamed(), list(data)):
        found = look(source)
        assert len(found) == 24
        assert found.counts == {"images": {"0": 8, "1": 8, "2": 8}}


def test_blank_images_are_no_copies_of_each_other(lesions):
    X = lesions[0].copy()
    X[[2, 9]] = 0
    X[11] = 200
    found = look(X, lesions[1])
    assert found.blank == [2, 9, 11]
    assert found.duplicates == []
    assert "3 image(s) have a single shade (image 2, image 9, image 11)" in found.verdict


def test_nearly_black_images_are_pointed_out(lesions):
    found = look(lesions[0] // 16, lesions[1])
    assert "largest pixel of all images (gray, 8 bits) is 15 of 255" in found.verdict


def test_rare_classes_follow_the_rule_of_the_split():
    X, y = stripes(20, n_classes=2)
    labels = np.where(np.arange(20) == 4, "rare", y.astype(str))
    found = look(X, labels, distance=-1)
    assert "1 class(es) have a single image (rare)" in found.verdict
    found = look(X, y, groups=np.where(y == 1, 0, 1 + np.arange(20)), distance=-1)
    assert "1 class(es) have a single group (1)" in found.verdict
    found = look(X[:2], [0, 1], distance=-1)
    assert "too few to hold out a validation part" in found.verdict


def test_missing_labels_and_groups_are_counted():
    X, y = stripes(20, n_classes=2)
    labels = [None if i == 5 else float("nan") if i == 6 else int(v) for i, v in enumerate(y)]
    found = look(X, labels, groups=[None, *range(19)], distance=-1)
    assert "2 image(s) have no label (image 5, image 6)" in found.verdict
    assert "1 image(s) have no group (image 0)" in found.verdict


def test_unknown_labels_of_a_multilabel_task_are_counted_per_label(tmp_path):
    X, y = stripes(20, n_classes=2)
    labels = np.stack([y, 1 - y, y], axis=1).astype(float)
    labels[:4, 1] = np.nan
    paths = []
    for i, image in enumerate(X):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    found = look(ImageTable(paths, labels, ["edema", "mass", "other"]), distance=-1)
    assert found.unknown == {"edema": 0, "mass": 4, "other": 0}
    assert found.counts["images"]["edema"] == int(y.sum())
    assert "unknown labels  mass: 4" in str(found)
    assert found.known == {"images": {"edema": 20, "mass": 16, "other": 20}}
    assert f"mass: {int((labels[:, 1] == 1).sum())} of 16 known" in str(found)


@pytest.mark.parametrize(
    ("uncertain", "known", "present"),
    [("unknown", 18, 10), ("positive", 20, 12), ("negative", 20, 10)],
)
def test_labels_that_are_uncertain_are_what_was_chosen(uncertain, known, present):
    X, y = stripes(20, n_classes=2)
    labels = np.stack([y, 1 - y], axis=1)
    labels[y == 0, 0] = [-1, -1, *[0] * 8]
    frame = pandas.DataFrame(labels, columns=["edema", "mass"])
    found = look(X, frame, uncertain=uncertain, distance=-1)
    assert found.known["images"] == {"edema": known, "mass": 20}
    assert found.counts["images"]["edema"] == present
    assert found.problems == []
    assert "choose what it means: uncertain=" in look(X, frame, distance=-1).verdict
    with pytest.raises(InputError, match=r"uncertain is 'maybe'; give one of \['error', 'unkn"):
        look(X, frame, uncertain="maybe")


class Findings(Dataset):
    """Items with lists of classes, as Hugging Face datasets have them."""

    def __init__(self):
        self.X, self.y = stripes(20, n_classes=2)
        self.features = {"label": SimpleNamespace(feature=SimpleNamespace(names=["edema", "mass"]))}

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        return {"image": self.X[index], "label": [[0], [1], [0, 1], []][index % 4]}


def test_names_of_labels_that_come_with_the_images_are_shown():
    found = look(Findings(), distance=-1)
    assert found.counts == {"images": {"edema": 10, "mass": 10}}
    assert found.known == {"images": {"edema": 20, "mass": 20}}


@pytest.mark.parametrize(
    "store",
    [
        lambda x: torch.from_numpy(x.copy())[None],
        lambda x: x.astype(np.float32) / 255,
        lambda x: x.astype(np.float64) / 255,
        lambda x: torch.from_numpy(x / 255).half()[None],
        lambda x: x.astype(np.uint16) * 257,
        lambda x: (x.astype(np.float32) * 257) / 65535,
        lambda x: np.stack([x] * 3, axis=-1),
        lambda x: Image.fromarray(x),
        lambda x: Image.fromarray(x).convert("RGB"),
        lambda x: np.asfortranarray(x),
    ],
)
def test_an_image_is_a_copy_in_whatever_it_is_stored(lesions, store):
    X = lesions[0][:4]
    found = look([*X, store(X[2])], [0, 1, 0, 1, 0], distance=-1)
    assert found.duplicates == [(2, 4)]
    changed = X[2].copy()
    changed[5, 5] ^= 1
    assert look([*X, store(changed)], [0, 1, 0, 1, 0], distance=-1).duplicates == []


def test_classes_that_a_split_lacks_are_pointed_out(lesions):
    X, y = lesions
    found = look(X[y > 0], y[y > 0], validation_data=(X[y < 2], y[y < 2]), distance=-1)
    assert "The split 'training' has no image of 0." in found.problems
    assert "The split 'validation' has no image of 2." in found.problems


def test_the_table_and_the_page_say_the_same(lesions):
    found = look([*pictures(lesions)[:23], lesions[0][:1, :, :48]], ["<a>", "b"] * 12)
    text, page = str(found), found._repr_html_()
    assert "96–96 × 48–96, 2 sizes, most often 96 × 96" in text
    assert "&lt;a&gt;: 12" in page
    assert "<a>" not in page
    assert repr(found) == "<Inspection of 24 images: 0 problem(s)>"


def test_without_imagehash_only_equal_images_are_found(lesions, monkeypatch):
    monkeypatch.setattr("diffmic.datasets.duplicates.find_spec", lambda name: None)
    X = lesions[0].copy()
    X[1] = X[0]
    found = look(X, lesions[1])
    assert found.duplicates == [(0, 1)]
    assert found.near_duplicates is None
    assert "not looked for" in str(found)


def test_lengths_must_agree(lesions):
    with pytest.raises(InputError, match="24 images, but y has 3 entries"):
        look(lesions[0], [0, 1, 2])
    with pytest.raises(InputError, match="24 images, but groups has 2 entries"):
        look(lesions[0], groups=[0, 1])


@pytest.mark.parametrize("X", [[], np.zeros((0, 4, 4), np.uint8), np.zeros(3), 5, None])
def test_what_holds_no_images_is_an_error(X):
    with pytest.raises(InputError):
        look(X)


def test_hashes_are_compared_with_all_others_in_every_orientation():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, (300, 8, 4), dtype=np.uint64)
    hashes[250, 3] = hashes[7, 0] ^ np.array([0b1011, 0, 0, 0], np.uint64)
    hashes[20, 0] = hashes[21, 0] = hashes[22, 0]
    hashes[23, 0] = hashes[22, 0] ^ np.array([0, 0, 0, 2**15 - 1], np.uint64)
    assert similar_sets(hashes, 3) == [(7, 250), (20, 21, 22)]
    assert similar_sets(hashes, 15) == [(7, 250), (20, 21, 22, 23)]
    assert similar_sets(hashes, 2) == [(20, 21, 22)]
    assert similar_sets(hashes[:1], 3) == []
    assert similar_sets(hashes[:0], 3) == []


def test_many_images_that_are_all_alike_need_little_memory(monkeypatch):
    monkeypatch.setattr("diffmic.datasets.duplicates._MOST_PAIRS", 100)
    monkeypatch.setattr("diffmic.datasets.duplicates._BLOCK", 500)
    hashes = np.zeros((200, 8, 4), dtype=np.uint64)
    hashes[:, 0, 3] = np.arange(200)
    assert similar_sets(hashes, 8) == [tuple(range(200))]


def test_a_turned_image_has_the_same_hashes_in_another_order(lesions):
    image = torch.from_numpy(lesions[0][:1])
    hashes = perceptual_hashes(image)
    assert hashes.shape == (8, 4)
    turned = perceptual_hashes(image.rot90(1, (1, 2)))
    differing = np.bitwise_count(hashes[0] ^ turned).sum(axis=1)
    assert differing.min() <= 4
    assert sorted(differing)[1] > 60


def test_the_inspection_is_the_same_each_time(lesions):
    assert str(look(*lesions)) == str(look(*lesions))


def test_pixels_of_16_bits_and_in_other_units_are_reported_as_they_are(lesions):
    deep = lesions[0].astype(np.uint16) * 16
    found = look(deep, lesions[1])
    assert found.pixels == {"gray, 16 bits": (24, 0, 255 * 16)}
    assert found.problems == []
    units = [image * 10.0 - 1000 for image in lesions[0].astype(np.float32)]
    with pytest.raises(InputError, match="None of the 24 images can be used"):
        look(units, lesions[1])
    found = look(units, lesions[1], value_range=(-1000, 1550))
    assert found.pixels == {"gray, floats": (24, 0, 1)}
    assert found.near_duplicates == []
    (problem,) = look(units, lesions[1], value_range=(-1000, 30000)).problems
    assert "is 1550, so that with value_range=(-1000, 30000) they are nearly black" in problem


def test_files_may_be_open_or_bytes(lesions):
    file = io.BytesIO()
    Image.fromarray(lesions[0][0]).save(file, "PNG")
    assert look([file, file.getvalue()]).duplicates == [(0, 1)]


def test_items_may_be_dicts_with_other_keys(lesions):
    items = [{"scan": image, "finding": f"c{label}"} for image, label in zip(*lesions, strict=True)]
    found = look(items, image_key="scan", label_key="finding")
    assert found.counts == {"images": {"c0": 8, "c1": 8, "c2": 8}}


@pytest.mark.parametrize("damage", ["no image at all", "half of it"])
def test_a_fit_that_meets_a_damaged_image_points_at_the_inspection(tmp_path, lesions, damage):
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for image, path in zip(pictures(lesions), paths, strict=False):
        image.save(path)
    content = paths[3].read_bytes()
    paths[3].write_bytes(b"text" if damage == "no image at all" else content[: len(content) // 2])
    for X in (paths, list(zip(paths, range(6), strict=True))):
        labels = [0, 1] * 3 if X is paths else None
        with pytest.raises(InputError, match=r"3\.png.*diffmic\.datasets\.inspect\(X\) lists all"):
            fit_data(X, labels)
    for path in paths:  # a fault of all images is no damage
        path.write_bytes(b"text")
    with pytest.raises(InputError) as told:
        fit_data(paths, [0, 1] * 3)
    assert "inspect" not in str(told.value)


def fit_data(X, y):
    return read_training_data(
        X,
        y,
        sample_weight=None,
        groups=None,
        validation_data=None,
        validation_fraction=None,
        class_weight=None,
        rng=np.random.RandomState(0),
    )


def test_columns_of_a_frame_name_the_labels():
    X, y = stripes(20, n_classes=2)
    frame = pandas.DataFrame({"edema": y, "mass": 1 - y})
    found = look(X, frame, distance=-1)
    assert found.counts == {"images": {"edema": 10, "mass": 10}}


@pytest.mark.parametrize(
    "y", [[{}] * 24, np.ones((24, 2, 2)), [[1, 2], [3]] * 12, {"a": 1}, list("abc")]
)
def test_labels_that_are_none_are_an_error(lesions, y):
    with pytest.raises(InputError):
        look(lesions[0], y)


@pytest.mark.parametrize("groups", [[[1, 2]] * 24, [{}] * 24, np.ones((24, 1, 1))])
def test_groups_that_are_none_are_an_error(lesions, groups):
    with pytest.raises(InputError):
        look(*lesions, groups=groups)


@pytest.mark.parametrize("distance", ["14", -2, 3.5, 65, None])
def test_a_distance_that_is_no_number_of_bits_is_an_error(lesions, distance):
    with pytest.raises(InputError, match="distance is"):
        look(*lesions, distance=distance)


def test_labels_that_fit_would_refuse_are_a_problem(lesions):
    assert "mix" in look(lesions[0], [1, "a"] * 12, distance=-1).verdict
    uncertain = np.column_stack([lesions[1] - 1, lesions[1] > 0])
    assert "uncertain" in look(lesions[0], uncertain, distance=-1).verdict
    assert look(lesions[0], ["None", "some"] * 12, distance=-1).problems == []


def test_a_batch_that_is_a_dict_has_labels(lesions):
    found = look({"image": lesions[0], "label": lesions[1]})
    assert found.counts == {"images": {"0": 8, "1": 8, "2": 8}}


class Nothing(IterableDataset):
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize("place", ["X", "validation_data"])
@pytest.mark.parametrize("X", [Nothing(), DataLoader(Nothing(), batch_size=2)])
def test_a_stream_of_nothing_holds_no_images(X, place):
    given = (X,) if place == "X" else (torch.rand(2, 3, 8, 8),)
    with pytest.raises(InputError, match="X holds no images"):
        look(*given, validation_data=None if place == "X" else (X, None))


def test_a_nested_tensor_is_told_from_a_list():
    X = torch.nested.nested_tensor([torch.ones(1, 8, 8), torch.ones(1, 9, 8)])
    with pytest.raises(InputError, match=r"nested tensor.*X\.unbind\(\)"):
        look(X)
