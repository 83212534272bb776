"""Stand-ins for libraries that are not installed for the tests: the same names and protocols.

Each was compared with the library itself by running ``tests/test_data_guide.py`` with it.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader


def _modules(**contents: dict[str, Any]) -> dict[str, ModuleType]:
    """Modules by name, with their contents; double underscores stand for dots."""
    made = {}
    for name, names in contents.items():
        module = ModuleType(name.replace("__", "."))
        vars(module).update(names)
        made[module.__name__] = module
    return made


def _polars() -> dict[str, ModuleType]:
    class Series:
        def __init__(self, name, values):
            self.name, self.values = name, values

        def __len__(self):
            return len(self.values)

        def __getitem__(self, index):
            return self.values[index]

        def to_numpy(self):
            return np.array(self.values, dtype=object)

        def to_list(self):
            return list(self.values)

    class DataFrame(dict):
        """Columns by name."""

    def read_csv(path):
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        return DataFrame({name: Series(name, [row[name] for row in rows]) for name in rows[0]})

    return _modules(polars={"read_csv": read_csv, "DataFrame": DataFrame, "Series": Series})


def _datasets() -> dict[str, ModuleType]:
    class Data:
        def __init__(self, rows, names, transform=None):
            self.rows, self.names, self.transform = rows, names, transform
            self.features = {"label": SimpleNamespace(names=names)}

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, index):
            path, label = self.rows[index]
            row = {"image": Image.open(path), "label": label}
            if self.transform is None:
                return row
            batch = self.transform({name: [value] for name, value in row.items()})
            return {name: values[0] for name, values in batch.items()}

        def with_transform(self, transform):
            return Data(self.rows, self.names, transform)

    def load_dataset(kind, *, data_dir, split):
        assert (kind, split) == ("imagefolder", "train")
        folders = sorted(Path(data_dir).iterdir())
        rows = [(file, i) for i, folder in enumerate(folders) for file in sorted(folder.iterdir())]
        return Data(rows, [folder.name for folder in folders])

    return _modules(datasets={"load_dataset": load_dataset})


def _transformers() -> dict[str, ModuleType]:
    class ViTImageProcessor:
        def __init__(self, do_normalize=True):
            self.shift = 0.5 if do_normalize else 0.0

        def __call__(self, images, return_tensors):
            resized = [np.asarray(image.resize((224, 224))) for image in images]
            pixels = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255
            return {"pixel_values": pixels - self.shift}

    return _modules(transformers={"ViTImageProcessor": ViTImageProcessor})


def _monai() -> dict[str, ModuleType]:
    class MetaTensor(torch.Tensor):
        """A tensor with metadata, which refuses to become a parameter of anything."""

    class Data:
        def __init__(self, data, transform):
            self.data, self.transform = data, transform

        def __len__(self):
            return len(self.data)

        def __getitem__(self, index):
            return self.transform(dict(self.data[index]))

    def compose(transforms):
        def apply(item):
            for transform in transforms:
                item = transform(item)
            return item

        return apply

    def load(key, reader, reverse_indexing=True):
        def read(path):
            pixels = np.asarray(Image.open(path), dtype=np.float32)
            pixels = pixels.swapaxes(0, 1) if reverse_indexing else pixels
            return torch.from_numpy(pixels.copy()).as_subclass(MetaTensor)

        return lambda item: item | {key: read(item[key])}

    def scale(key, low, high, new_low, new_high, clip):
        assert (new_low, new_high, clip) == (0, 1, True)
        return lambda item: item | {key: ((item[key] - low) / (high - low)).clip(0, 1)}

    return _modules(
        monai={},
        monai__data={"DataLoader": DataLoader, "Dataset": Data, "MetaTensor": MetaTensor},
        monai__transforms={
            "Compose": compose,
            "EnsureChannelFirstd": lambda key: lambda item: item | {key: item[key][None]},
            "LoadImaged": load,
            "ScaleIntensityRanged": scale,
        },
    )


def _torchxrayvision() -> dict[str, ModuleType]:
    class CheXDataset:
        pathologies = ("Cardiomegaly", "Edema", "Pneumothorax")

        def __init__(self, imgpath, csvpath, unique_patients):
            with open(csvpath, newline="") as file:
                self.rows = list(csv.DictReader(file))
            self.folder = Path(imgpath)
            self.labels = np.array([self._labels(row) for row in self.rows])

        def _labels(self, row):
            values = [row[name] for name in self.pathologies]
            return [np.nan if value in ("", "-1.0") else float(value) for value in values]

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, index):
            name = self.rows[index]["Path"].replace("CheXpert-v1.0-small/", "")
            pixels = np.asarray(Image.open(self.folder / name), dtype=np.float32)
            image = (2 * (pixels / 255) - 1) * 1024
            return {"idx": index, "lab": self.labels[index], "img": image[None]}

    module = SimpleNamespace(CheX_Dataset=CheXDataset)
    return _modules(torchxrayvision={"datasets": module})


def _medmnist() -> dict[str, ModuleType]:
    class PneumoniaMNIST:
        info = {"label": {"0": "normal", "1": "pneumonia"}}  # noqa: RUF012

        def __init__(self, split, root):
            stored = np.load(Path(root) / "pneumoniamnist.npz")
            self.imgs, self.labels = stored[f"{split}_images"], stored[f"{split}_labels"]

        def __len__(self):
            return len(self.imgs)

        def __getitem__(self, index):
            return Image.fromarray(self.imgs[index]), self.labels[index].astype(int)

    return _modules(medmnist={"PneumoniaMNIST": PneumoniaMNIST})


def _nibabel() -> dict[str, ModuleType]:
    def load(path):
        pixels = np.load(Path(path).with_suffix("").with_suffix(".npy"))
        return SimpleNamespace(dataobj=pixels, shape=pixels.shape)

    return _modules(nibabel={"load": load, "as_closest_canonical": lambda image: image})


STAND_INS: dict[str, Callable[[], dict[str, ModuleType]]] = {
    "datasets": _datasets,
    "medmnist": _medmnist,
    "monai": _monai,
    "nibabel": _nibabel,
    "polars": _polars,
    "torchxrayvision": _torchxrayvision,
    "transformers": _transformers,
}
