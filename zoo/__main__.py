"""Make and publish the models of the zoo, from a checkout.

python -m zoo train diffmic-v2-aptos --data FOLDER
python -m zoo push diffmic-v2-aptos --repository org/diffmic-v2-aptos
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from diffmic import DiffMICClassifier
from diffmic.datasets import ImageTable, read_csv
from diffmic.demo import table
from diffmic.hub.files import WEIGHTS_FILE, digest
from diffmic.inference import STAGES

from .recipes import ZOO, ZooModel

HERE = Path(__file__).parent
HALF_PRECISION_TOLERANCE = 0.005
app = typer.Typer(add_completion=False, help=__doc__)
Name = Annotated[str, typer.Argument(help=f"One of {', '.join(ZOO)}.")]
Models = Annotated[Path, typer.Option(help="Folder with the trained models.")]
Results = Annotated[Path, typer.Option(help="Folder with their measures.")]


@app.command()
def train(
    name: Name,
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    models: Models = HERE / "models",
    results: Results = HERE / "results",
    seed: int = 0,
    max_epochs: Annotated[int | None, typer.Option(help="Fewer, to try things out.")] = None,
    verbose: int = 1,
) -> None:
    """Train, measure on the test part once, and save in half precision with the card."""
    recipe = chosen(name)
    images = read_csv(data / recipe.folder / "labels.csv")
    clf = fitted(recipe, images, seed, max_epochs, verbose)
    scores = save(clf, recipe, images, models / name)
    epochs = "" if max_epochs is None else f" --max-epochs {max_epochs}"
    record = {
        "command": f"python -m zoo train {name} --data FOLDER --seed {seed}{epochs}",
        "image_size": clf.image_size_,
        "max_epochs": clf.max_epochs,
        "weights_sha256": digest((models / name / WEIGHTS_FILE).read_bytes()),
        "validation": clf.validation_scores_,
        "test": scores,
    }
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"\n{name}, test part, one run, seed {seed}\n\n{table(scores)}\n\nSaved {models / name}")


@app.command()
def push(
    name: Name,
    repository: Annotated[str, typer.Option(help="On the Hugging Face Hub: org/name.")],
    models: Models = HERE / "models",
    results: Results = HERE / "results",
    private: bool = False,
    create_pr: bool = False,
) -> None:
    """Publish a trained model; ``hf auth login`` comes first."""
    chosen(name)
    weights, record = models / name / WEIGHTS_FILE, results / f"{name}.json"
    if not (weights.is_file() and record.is_file()):
        raise typer.BadParameter(f"{weights} or {record} is missing: train {name} first.")
    if json.loads(record.read_text())["weights_sha256"] != digest(weights.read_bytes()):
        raise typer.BadParameter(f"{record} tells of other weights than {weights}: train {name}.")
    clf = DiffMICClassifier.from_pretrained(models / name)
    print(clf.push_to_hub(repository, private=private, create_pr=create_pr, dtype="float16"))


def chosen(name: str) -> ZooModel:
    """A model of the zoo by its name."""
    if name not in ZOO:
        raise typer.BadParameter(f"There is no {name!r} in the zoo; there are: {', '.join(ZOO)}.")
    return ZOO[name]


def fitted(
    recipe: ZooModel, images: ImageTable, seed: int, max_epochs: int | None, verbose: int
) -> DiffMICClassifier:
    """The estimator, trained on the training part and calibrated on the validation part."""
    training, validation = images.part("train"), images.part("val")
    clf = DiffMICClassifier(random_state=seed, verbose=verbose, **recipe.parameters)
    if images.labels.ndim == 2:
        clf.set_params(class_names=images.label_names)
    if max_epochs is not None:
        clf.set_params(max_epochs=max_epochs)
    return clf.fit(
        training.paths,
        training.labels,
        validation_data=(validation.paths, validation.labels),
    )


def save(
    clf: DiffMICClassifier, recipe: ZooModel, images: ImageTable, folder: Path
) -> dict[str, dict[str, float]]:
    """Save in half precision, once that is known to change little; measures on the test part."""
    clf.save_pretrained(folder, dtype="float16", card=recipe.card)
    half = DiffMICClassifier.from_pretrained(folder)
    validation, test = images.part("val"), images.part("test")
    largest = max(
        np.abs(
            half.predict_proba(validation.paths, stage=stage)
            - clf.predict_proba(validation.paths, stage=stage)
        ).max()
        for stage in STAGES
    )
    if largest > HALF_PRECISION_TOLERANCE:
        clf.save_pretrained(folder)
        raise SystemExit(
            f"Half precision changes probabilities on the validation part by {largest:.4f}; saved "
            "in full precision, without measures on the test part."
        )
    # Of what is published: the weights in half precision.
    scores = half.evaluate(test.paths, test.labels, ordered=recipe.ordered)
    run = (
        f" One training run, seed {clf.random_state}, {clf.max_epochs} epochs; the test part was "
        "read once, after it."
    )
    card = replace(recipe.card, split=recipe.card.split + run, test_scores=scores, n_test=len(test))
    half.save_pretrained(folder, dtype="float16", card=card)
    (folder / "NOTICE").write_text(card.license_note + "\n")
    return scores


if __name__ == "__main__":
    app()
