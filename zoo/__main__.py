"""Make and publish the models of the zoo, from a checkout.

python -m zoo train diffmic-v2-aptos --data FOLDER
python -m zoo predict diffmic-v2-aptos --data FOLDER    out-of-fold predictions, which it learns
python -m zoo measure --data FOLDER         the trained models on their test parts, once more
python -m zoo table                         their metrics with intervals, as Markdown
python -m zoo push diffmic-v2-aptos
python -m zoo convert                       to today's file format, without training
python -m zoo regions NAME --data FOLDER    other regions, without training
"""

import json
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from diffmic import DiffMICClassifier
from diffmic.datasets import make_lesions
from diffmic.errors import DiffMICError
from diffmic.estimator.prediction import evidence_for
from diffmic.hub import check_repository, load_model, push_folder, save_model
from diffmic.hub.card import Scores
from diffmic.hub.files import WEIGHTS_FILE, digest
from diffmic.hub.names import said_by_the_hub
from diffmic.hub.publish import NOTICE_FILE
from diffmic.image_table import LabelledTable
from diffmic.inference import STAGES, EvaluationReport
from diffmic.model import resolve_architecture
from diffmic.published import BUNDLED
from diffmic.tasks import METRIC_WORDS, class_shares, task_named
from diffmic.training import resolve_recipe

from .doubt import with_doubt
from .recipes import ZOO, ZooModel
from .soft_labels import predict_fold, soft_labels, write_predictions

HERE = Path(__file__).parent
HALF_PRECISION_TOLERANCE = 0.005
CONVERSION_TOLERANCE = 1e-4
N_GENERATED = 24  # images on which probabilities are compared
SHOWN = ("accuracy", "label_accuracy", "macro_f1", "kappa", "auc", "nll", "ece_mass")
app = typer.Typer(add_completion=False, help=__doc__)
Name = Annotated[str, typer.Argument(help=f"One of {', '.join(ZOO)}.")]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Left out: all of them.")
]
Models = Annotated[Path, typer.Option(help="Folder with the trained models.")]
Results = Annotated[Path, typer.Option(help="Folder with their metrics.")]


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
    if max_epochs is not None and HERE in (models.resolve().parent, results.resolve().parent):
        raise typer.BadParameter(
            "--max-epochs is for trying things out: pass --models and --results, too, so that the "
            "zoo's own stay as they are."
        )
    images, soft = recipe.images(data), None
    if (how := recipe.out_of_fold) is not None:
        file = predictions_of(name, results)
        file = file if file.is_file() else predictions_of(name, HERE / "results")
        try:
            soft = soft_labels(how, images.part("train"), file)
        except ValueError as reason:
            raise typer.BadParameter(f"{reason}: python -m zoo predict {name} first.") from reason
    clf = fitted(recipe, images, soft, seed, max_epochs, verbose)
    report, change = save(clf, recipe, images, models / name)
    epochs = "" if max_epochs is None else f" --max-epochs {max_epochs}"
    record = {
        "command": f"python -m zoo train {name} --data FOLDER --seed {seed}{epochs}",
        "versions": clf.versions_,
        "image_size": clf.image_size_,
        "max_epochs": clf.max_epochs,
        "recipe": asdict(resolve_recipe(clf.recipe)),
        "out_of_fold": how and asdict(how),
        "weights_sha256": digest((models / name / WEIGHTS_FILE).read_bytes()),
        "largest_change_by_half_precision": change,
        "validation": clf.validation_scores_,
        **recorded(report),
    }
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"\n{name}, test part, one run, seed {seed}\n\n{report.to_markdown()}")
    print(f"\nSaved {models / name}")


@app.command()
def predict(
    name: Name,
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    fold: Annotated[int | None, typer.Option(help="One of the folds; left out: all.")] = None,
    results: Results = HERE / "results",
) -> None:
    """Train a model for each fold of the training images, and keep what it predicts for it."""
    recipe = chosen(name)
    if (how := recipe.out_of_fold) is None:
        raise typer.BadParameter(f"{name} learns the labels as they are.")
    if fold is not None and not 0 <= fold < how.n_folds:
        raise typer.BadParameter(f"There are folds 0 to {how.n_folds - 1}, and no {fold}.")
    images = recipe.images(data)
    for each in range(how.n_folds) if fold is None else [fold]:
        found = predict_fold(recipe, how, images, each)
        write_predictions(predictions_of(name, results), how, found, each)
        print(f"{name}: fold {each}, {len(found)} images predicted.", flush=True)


@app.command()
def measure(
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    names: Names = None,
    models: Models = HERE / "models",
    results: Results = HERE / "results",
) -> None:
    """Measure trained models on their test parts once more, and record it; trains nothing."""
    for name in names or ZOO:
        recipe = chosen(name)
        folder, record = stored(name, models, results)
        clf = DiffMICClassifier.from_pretrained(folder, device="cpu")
        test = recipe.images(data).part("test")
        record |= recorded(clf.evaluate(test.images, test.labels, groups=test.groups))
        (results / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
        print(f"{name}: {len(test)} images measured.")


@app.command()
def table(names: Names = None, results: Results = HERE / "results") -> None:
    """Print metrics of prior and diffusion on the test parts, with 95 % intervals, as Markdown."""
    print("| | images | metric | prior | diffusion | diffusion alone | diffusion − prior |")
    print("|---|---|---|---|---|---|---|")
    for name in names or ZOO:
        chosen(name)
        record = json.loads((results / f"{name}.json").read_text())
        if "intervals" not in record:
            raise typer.BadParameter(f"{name} has no intervals yet: python -m zoo measure {name}.")
        title = f"`{name}` | {record['n_test']}"
        for metric in [m for m in SHOWN if m in record["test"]["prior"]]:
            cells = [
                f"{record['test'][stage][metric]:.3f} ({low:.3f} to {high:.3f})"
                for stage in ("prior", "diffusion", "diffusion_alone")
                for low, high in [record["intervals"][stage][metric]]
            ]
            value, low, high = record["differences"][metric]
            difference = f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
            print(f"| {title} | {METRIC_WORDS[metric]} | {' | '.join(cells)} | {difference} |")
            title = " | "


def recorded(report: EvaluationReport) -> dict[str, Any]:
    """Metrics of a test part with their 95 % intervals, and differences of the two stages."""
    return {
        "n_test": report.n_images,
        "test": {stage: dict(of) for stage, of in report.items()},
        "intervals": {
            stage: {metric: report.measured(stage, metric)[1:] for metric in report[stage]}
            for stage in report
        },
        "differences": {metric: report.difference(metric) for metric in report["prior"]},
    }


@app.command()
def push(
    name: Name,
    repository: Annotated[
        str | None,
        typer.Option(help="org/name on the Hugging Face Hub; left out: NAME, of who is logged in."),
    ] = None,
    models: Models = HERE / "models",
    results: Results = HERE / "results",
    private: bool = False,
    create_pr: bool = False,
) -> None:
    """Publish a trained model, or else the one of the package; ``hf auth login`` comes first."""
    chosen(name)
    folder, _ = stored(name, models, results)
    try:
        print(pushed(folder, repository or f"{token_holder()}/{name}", private, create_pr))
    except DiffMICError as reason:
        raise typer.BadParameter(str(reason)) from reason


@app.command()
def convert(
    names: Names = None,
    models: Models = HERE / "models",
    results: Results = HERE / "results",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with the data sets: class shares and doubt are learnt anew."),
    ] = None,
) -> None:
    """Save trained models, or else the one of the package, in today's file format.

    Nothing is trained; card and terms stay. Probabilities of both stages on generated images may
    not change by more than 0.0001, else the files stay as they are. With ``--data``, the class
    shares are those of the training part, and the confidence of decisions, the reference of
    embeddings and the calibration of the diffusion alone are learnt on the validation part, as at
    the end of a fit.
    """
    for name in names or ZOO:
        recipe = chosen(name)
        folder, record = stored(name, models, results)
        before = record["weights_sha256"]
        clf = DiffMICClassifier.from_pretrained(folder, device="cpu")
        card = replace(clf.card_, test_scores=todays(clf.card_.test_scores, clf))
        with_task(clf, recipe)
        if data is not None:
            images = recipe.images(data)
            learn_shares(clf, images.part("train"))
            learn_doubt(clf, images.part("val"))
        with tempfile.TemporaryDirectory() as made:
            clf.save_pretrained(Path(made) / name, dtype="float16", card=card)
            new = DiffMICClassifier.from_pretrained(Path(made) / name, device="cpu")
            old = DiffMICClassifier.from_pretrained(folder, device="cpu")
            change = largest_change(old, new, generated(clf))
        if change > CONVERSION_TOLERANCE:
            raise SystemExit(f"{name}: a probability changes by {change:.2g}; nothing was saved.")
        clf.save_pretrained(folder, dtype="float16", card=card)
        record["weights_sha256"] = digest((folder / WEIGHTS_FILE).read_bytes())
        record["test"] = todays(record["test"], clf)
        (results / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
        same = record["weights_sha256"] == before
        told = "the same" if same else f"new, with the SHA-256 {record['weights_sha256']}"
        print(f"{name}: probabilities changed by at most {change:.2g}, the weights are {told}.")


@app.command()
def regions(
    name: Name,
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    importance: Annotated[str, typer.Option(help="fused, contrast or paper.")] = "fused",
    models: Models = HERE / "models",
    results: Results = HERE / "results",
) -> None:
    """Let a trained model choose its regions by another form of importance; trains nothing.

    Its calibration and what it knows of its doubt are learnt anew on the validation part, then it
    is measured on the test part.
    """
    recipe = chosen(name)
    folder, record = stored(name, models, results)
    images = recipe.images(data)
    validation, test = images.part("val"), images.part("test")
    clf = DiffMICClassifier.from_pretrained(folder, device="cpu")
    before, card = clf.model_, clf.card_
    with tempfile.TemporaryDirectory() as made:
        with_importance(clf, importance)
        clf.save_pretrained(Path(made) / name, dtype="float16")
        clf = DiffMICClassifier.from_pretrained(Path(made) / name, device="cpu")
    clf.calibrate(validation.images, validation.labels)
    if not before.thresholds:  # grades of older models: the most probable one is decided
        alone = None if clf.model_.alone is None else replace(clf.model_.alone, thresholds=None)
        clf.model_ = replace(clf.model_, thresholds={}, alone=alone)
    learn_doubt(clf, validation)
    report = clf.evaluate(test.images, test.labels, groups=test.groups)
    told = (
        f" Since then its regions are chosen by region_importance={importance!r} instead of "
        f"{before.plan.architecture.region_importance!r}, its calibration was fitted anew on the "
        "validation part, and the test part was read once more."
    )
    card = replace(
        card,
        split=card.split + told,
        limits=recipe.card.limits,
        test_scores=report,
        n_test=len(test),
    )
    clf.save_pretrained(folder, dtype="float16", card=card)
    found = clf.recalibration_
    record |= {
        "region_importance": importance,
        "regions_command": f"python -m zoo regions {name} --importance {importance} --data FOLDER",
        "recalibration": {"nll_before": found.nll_before, "nll_after": found.nll_after},
        "weights_sha256": digest((folder / WEIGHTS_FILE).read_bytes()),
        **recorded(report),
    }
    (results / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"{name}, test part\n\n{report.to_markdown()}")


def with_importance(clf: DiffMICClassifier, importance: str) -> None:
    """Give a model another form of importance, which the next one that is loaded goes by."""
    plan = clf.model_.plan
    architecture = replace(plan.architecture, region_importance=importance)
    clf.model_ = replace(clf.model_, plan=replace(plan, architecture=architecture))
    own = resolve_architecture(clf.architecture)
    clf.set_params(architecture=replace(own, region_importance=importance))


def learn_shares(clf: DiffMICClassifier, images: LabelledTable) -> None:
    """Learn the class shares for which a model's probabilities hold from its training images."""
    model, targets = clf.model_, truth(images, clf.classes_)
    shares = class_shares(targets, torch.ones(len(targets)), model.task).numpy()
    clf.model_ = replace(model, shares=shares)


def learn_doubt(clf: DiffMICClassifier, images: LabelledTable) -> None:
    """Learn on labelled images what a model knows of its doubt."""
    model, parameters = clf.model_, clf.get_params(deep=False)
    evidence = evidence_for(model, parameters, images.images, "diffusion", embeddings=True)
    clf.model_ = with_doubt(model, evidence, truth(images, model.classes))


def truth(images: LabelledTable, classes: NDArray[Any]) -> torch.Tensor:
    """One-hot or indicator targets (n, C) of labelled images."""
    labels = np.asarray(images.labels)
    targets = labels if labels.ndim == 2 else labels[:, None] == classes[None]
    return torch.from_numpy(targets.astype(np.float32))


def stored(name: str, models: Path, results: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of a model, and its record, which must be of these weights."""
    trained, bundled = models / name, BUNDLED / name
    folder = bundled if bundled.is_dir() and not trained.exists() else trained
    weights, file = folder / WEIGHTS_FILE, results / f"{name}.json"
    for needed in (weights, folder / NOTICE_FILE, file):
        if not needed.is_file():
            raise typer.BadParameter(f"{needed} is missing: train {name} first.")
    record: dict[str, Any] = json.loads(file.read_text())
    if record["weights_sha256"] != digest(weights.read_bytes()):
        raise typer.BadParameter(f"{file} is of other weights than {weights}: train {name}.")
    return folder, record


def todays(scores: Scores, clf: DiffMICClassifier) -> dict[str, dict[str, float]]:
    """Metrics by today's names: multi-label accuracy was once that of single labels."""
    earlier = not clf.task_.exclusive and all("label_accuracy" not in of for of in scores.values())
    renamed = {"accuracy": "label_accuracy"} if earlier else {}
    return {
        stage: {renamed.get(metric, metric): value for metric, value in of.items()}
        for stage, of in scores.items()
    }


def with_task(clf: DiffMICClassifier, recipe: ZooModel) -> None:
    """Give a model the task of its recipe, which earlier files could not hold."""
    if "task" in recipe.parameters:
        clf.set_params(task=recipe.parameters["task"])
        plan = replace(clf.model_.plan, task=task_named(clf.task))
        clf.model_ = replace(clf.model_, plan=plan)


def generated(clf: DiffMICClassifier) -> NDArray[np.uint8]:
    """Images of the model's size with as many channels as those of its fit."""
    grey, _ = make_lesions(N_GENERATED, image_size=clf.image_size_, random_state=0)
    return np.repeat(grey[..., None], clf.channels_, axis=-1)


def largest_change(one: DiffMICClassifier, other: DiffMICClassifier, X: Any) -> float:
    """The largest difference of a probability, of either stage."""
    return max(
        float(np.abs(one.predict_proba(X, stage=s) - other.predict_proba(X, stage=s)).max())
        for s in STAGES
    )


def token_holder() -> str:
    """The name on the Hub of whoever is logged in."""
    from huggingface_hub import HfApi

    try:
        return str(HfApi().whoami()["name"])
    except Exception as reason:  # the client's errors have no base of their own
        raise typer.BadParameter(
            f"The Hub does not tell whose token this is ({said_by_the_hub(reason)}): run "
            "'hf auth login' or set HF_TOKEN, or pass --repository org/name."
        ) from reason


def pushed(folder: Path, repository: str, private: bool, create_pr: bool) -> str:
    """Upload weights, card and terms in one commit, and give its address."""
    check_repository(repository)
    defaults = DiffMICClassifier().get_params(deep=False)
    model = load_model(folder, defaults=defaults, backbone=None, device=torch.device("cpu"))
    with tempfile.TemporaryDirectory() as made:
        save_model(made, model, dtype="float16", name=repository)
        shutil.copy(folder / NOTICE_FILE, made)
        return push_folder(Path(made), repository, private=private, create_pr=create_pr)


def chosen(name: str) -> ZooModel:
    """A model of the zoo by its name."""
    if name not in ZOO:
        raise typer.BadParameter(f"There is no {name!r} in the zoo; there are: {', '.join(ZOO)}.")
    return ZOO[name]


def predictions_of(name: str, results: Path) -> Path:
    """Where the out-of-fold predictions of a model's training images are."""
    return results / "out-of-fold" / f"{name}.csv"


def fitted(
    recipe: ZooModel,
    images: LabelledTable,
    soft: NDArray[np.float64] | None,
    seed: int,
    max_epochs: int | None,
    verbose: int,
) -> DiffMICClassifier:
    """The estimator, trained on the training part and calibrated on the validation part."""
    training, validation = images.part("train"), images.part("val")
    clf = DiffMICClassifier(random_state=seed, verbose=verbose, **recipe.parameters)
    if images.labels.ndim == 2:
        clf.set_params(class_names=images.label_names)
    if max_epochs is not None:
        clf.set_params(max_epochs=max_epochs)
    return clf.fit(
        training.images,
        training.labels,
        validation_data=(validation.images, validation.labels),
        soft_labels=soft,
    )


def save(
    clf: DiffMICClassifier, recipe: ZooModel, images: LabelledTable, folder: Path
) -> tuple[EvaluationReport, float]:
    """Save in half precision, once that is known to change little.

    Returns
    -------
    EvaluationReport
        Metrics on the test part.
    float
        The largest change of a probability by half precision, on the validation part.
    """
    clf.save_pretrained(folder, dtype="float16", card=recipe.card)
    half = DiffMICClassifier.from_pretrained(folder)
    validation, test = images.part("val"), images.part("test")
    largest = largest_change(half, clf, validation.images)
    if largest > HALF_PRECISION_TOLERANCE:
        clf.save_pretrained(folder)
        raise SystemExit(
            f"Half precision changes probabilities on the validation part by {largest:.4f}; saved "
            "in full precision, without metrics of the test part."
        )
    # Of what is published: the weights in half precision.
    report = half.evaluate(test.images, test.labels, groups=test.groups)
    run = (
        f" One training run, seed {clf.random_state}, {clf.max_epochs} epochs; the test part was "
        "read once, after it."
    )
    if (how := recipe.out_of_fold) is not None:
        run += (
            f" Its prior learnt soft labels: the labels, with a share of {how.share:g} of what "
            f"{how.n_folds} models say that were trained without the image."
        )
    card = replace(recipe.card, split=recipe.card.split + run, test_scores=report, n_test=len(test))
    half.save_pretrained(folder, dtype="float16", card=card)
    (folder / NOTICE_FILE).write_text(card.license_note + "\n")
    return report, largest


if __name__ == "__main__":
    app()
