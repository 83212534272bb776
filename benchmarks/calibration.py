"""Calibration: errors with intervals, other class shares, and decisions for grades.

    python benchmarks/calibration.py errors                  from the kept answers of accuracy.py
    python benchmarks/calibration.py shifted --data FOLDER   likelihood under other class shares
    python benchmarks/calibration.py views                   what views change, class by class
    python benchmarks/calibration.py decisions               grades by cut points, and without them
    python benchmarks/calibration.py anew MODEL --data FOLDER    what ``calibrate`` is worth
    python benchmarks/calibration.py grades --data FOLDER    kappa on the validation part of APTOS
    python benchmarks/calibration.py weights --data FOLDER --small    how both stages are weighed

The first four read the test probabilities beside the file of results and train nothing;
``grades`` and ``weights`` use the networks of ``accuracy.py run`` (``--work``), and train what is
missing.
"""

import itertools
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from accuracy_bench.encoders import Job
from accuracy_bench.methods import GRADES, METHODS
from accuracy_bench.results import Answers, Results
from accuracy_bench.tasks import DATA_SETS, DataSet, load, table_of
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    recall_score,
    roc_auc_score,
)
from sklearn.model_selection import train_test_split

from diffmic import DiffMICClassifier
from diffmic.data import TargetEncoding
from diffmic.inference import Calibration
from diffmic.inference.calibration import mean_nll
from diffmic.inference.decisions import expected_position, kappa_cuts
from diffmic.inference.prevalence import estimated_shares, log_ratio
from diffmic.tasks import calibration_errors
from diffmic.training.readings import Reading, balanced_folds

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "accuracy.csv"
COMPARED = ("plain", "prior", "diffusion")
FOLDS = 5
DIVISIONS = 3  # into folds
PENALTIES = (0, 1, 3, 10, 30, 100, 1000)  # on unequal weights, in images
NONE = 0.01  # share of the weight that is as good as none
WEIGHED = ("diffusion", "head_linear_stacked")
app = typer.Typer(add_completion=False, help=__doc__)
File = Annotated[Path, typer.Option(help="CSV file of the results.")]
Floats = Any


@app.command()
def errors(results: File = RESULTS, n_resamples: int = 500) -> None:
    """Errors in 15 bins of equal mass on the test parts, means over runs, as Markdown.

    Every method has a temperature from its validation part. In brackets: the mean of the ends of
    the runs' 95 % intervals over patients, lesions or images; then the mean error of chance.
    """
    kept = Results(results)
    print("| set | method | runs | images | expected calibration error | classwise |")
    print("|---|---|---|---|---|---|")
    for name in DATA_SETS:
        for method in COMPARED:
            found = answers_of(kept, name, method)
            if not found:
                continue
            measured = [of_run(answers, n_resamples) for answers in found]
            images = np.mean([len(a.targets) for a in found])
            cells = [name, method, str(len(found)), f"{images:.0f}"]
            for metric in ("ece_mass", "ece_classwise"):
                runs = [m[metric] for m in measured]
                value, low, high, chance = (
                    np.mean([getattr(r, field) for r in runs])
                    for field in ("value", "low", "high", "of_chance")
                )
                cells.append(f"{value:.3f} ({low:.3f} to {high:.3f}; chance {chance:.3f})")
            print("| " + " | ".join(cells) + " |", flush=True)


def answers_of(kept: Results, name: str, method: str) -> list[Answers]:
    """Kept answers of all runs of a method on a set."""
    seeds = sorted({int(row["seed"]) for row in kept.rows() if row["set"] == name})
    return [a for seed in seeds if (a := kept.answers(name, seed, method)) is not None]


def of_run(answers: Answers, n_resamples: int) -> dict[str, Any]:
    """Calibration errors of one run."""
    proba = answers.proba
    if not answers.multilabel:
        proba = proba / proba.sum(axis=1, keepdims=True)  # of half precision
    truth = answers.targets if answers.multilabel else answers.targets.argmax(axis=1)
    return calibration_errors(truth, proba, n_resamples=n_resamples, groups=answers.groups)


@app.command()
def shifted(
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    results: File = RESULTS,
    method: str = "diffusion",
) -> None:
    """Likelihood on test parts in which classes have the shares of the training turned round.

    The rarest class is given the share of the most frequent one, and so on: images are weighted so
    that their classes have such shares. Probabilities are as they are, corrected for the true
    shares, and for those that expectation–maximisation finds in the weighted images without labels.
    """
    kept = Results(results)
    print(
        "| set | runs | as they are | true shares | estimated shares | largest error of a share |"
    )
    print("|---|---|---|---|---|---|")
    for name, data_set in DATA_SETS.items():
        found = [a for a in answers_of(kept, name, method) if not a.multilabel]
        if not found:
            continue
        rows = []
        for answers in found:
            shares = training_shares(data_set, data)
            rows.append(of_shift(answers, shares))
        means = np.mean(rows, axis=0)
        print(f"| {name} | {len(found)} | " + " | ".join(f"{x:.3f}" for x in means) + " |")


def training_shares(data_set: DataSet, data: Path) -> Floats:
    """Class shares of the training images; of a split of each run's own, those of the set's."""
    part = table_of(data_set, data).part("train")
    targets = TargetEncoding.learn_and_encode(part.labels, data_set.task)[1]
    return np.asarray(targets.mean(axis=0), dtype=np.float64)


def of_shift(answers: Answers, shares: Floats) -> tuple[float, float, float, float]:
    """Negative log-likelihoods of one run, and the largest error of an estimated share."""
    proba = answers.proba.clip(1e-4)
    proba = proba / proba.sum(axis=1, keepdims=True)
    y, here = answers.targets.argmax(axis=1), answers.targets.mean(axis=0)
    other = np.empty_like(shares)
    other[np.argsort(shares)] = np.sort(shares)[::-1]
    other = np.where(here > 0, other, 0)
    other /= other.sum()
    weights = np.where(here > 0, other / np.maximum(here, 1e-12), 0)[y]

    def nll(p: Floats) -> float:
        return float(np.average(-np.log(p[np.arange(len(y)), y]), weights=weights))

    def corrected(to: Floats) -> Floats:
        joint = proba * np.exp(log_ratio(to.clip(1e-6), shares, exclusive=True))
        return joint / joint.sum(axis=1, keepdims=True)

    estimate = estimated_shares(proba, shares, exclusive=True, weights=weights)[0]
    return (
        nll(proba),
        nll(corrected(other)),
        nll(corrected(estimate)),
        np.abs(estimate - other).max(),
    )


@app.command()
def views(
    name: Annotated[str, typer.Option("--set")] = "ham10000",
    first_seed: Annotated[int, typer.Option(help="Leave out the runs before it.")] = 0,
    results: File = RESULTS,
) -> None:
    """What five views change in decisions on a test part, means over runs, as Markdown.

    Decisions are of the most probable class, and of the largest probability over its class's share
    of the part, which give every class the same weight. Beside: the recall of each class.
    """
    kept = Results(results)
    print(
        "| method | runs | AUC | macro F1 | without the rarest class | F1 by p / share "
        "| balanced accuracy by p / share | recall of each class (its images) |"
    )
    print("|---|---|---|---|---|---|---|---|")
    seeds = sorted({int(row["seed"]) for row in kept.rows() if row["set"] == name})
    for method in (m + kind for m in COMPARED for kind in ("", "_tta")):
        found = [kept.answers(name, seed, method) for seed in seeds if seed >= first_seed]
        runs = [of_decisions(answers) for answers in found if answers is not None]
        if not runs:
            continue
        measures, recalls, counts = (np.mean(each, axis=0) for each in zip(*runs, strict=True))
        classes = ", ".join(f"{r:.2f} ({n:.0f})" for r, n in zip(recalls, counts, strict=True))
        cells = [method, str(len(runs)), *(f"{x:.3f}" for x in measures), classes]
        print("| " + " | ".join(cells) + " |")


def of_decisions(answers: Answers) -> tuple[Floats, Floats, Floats]:
    """Measures of one run in the order of the table, recall of each class, images of each class."""
    y, counts = answers.targets.argmax(axis=1), answers.targets.sum(axis=0)
    decided, balanced = answers.proba.argmax(axis=1), (answers.proba / counts).argmax(axis=1)
    of_classes = f1_score(y, decided, average=None)
    measures = [
        roc_auc_score(answers.targets, answers.proba, average="macro"),
        of_classes.mean(),
        np.delete(of_classes, counts.argmin()).mean(),
        f1_score(y, balanced, average="macro"),
        balanced_accuracy_score(y, balanced),
    ]
    return np.array(measures), recall_score(y, decided, average=None), counts


@app.command()
def decisions(
    name: Annotated[str, typer.Option("--set", help="One with grades.")] = "aptos",
    results: File = HERE / "results" / "accuracy_small.csv",
) -> None:
    """What cut points change in decisions for grades on a test part, means over runs, as Markdown.

    The cut points are those of the validation part.
    """
    kept, measured = Results(results), (accuracy_score, _macro_f1, _quadratic_kappa)
    print("| method | runs | most probable: accuracy, macro F1, kappa | by cut points |")
    print("|---|---|---|---|")
    for method in COMPARED:
        found = [a for a in answers_of(kept, name, method) if a.thresholds.size]
        if not found:
            continue
        cells = []
        for decided in (lambda a: a.proba, lambda a: a.predicted):
            pairs = [(a.targets.argmax(axis=1), decided(a).argmax(axis=1)) for a in found]
            means = [np.mean([measure(*pair) for pair in pairs]) for measure in measured]
            cells.append(", ".join(f"{mean:.3f}" for mean in means))
        print(f"| {method} | {len(found)} | {' | '.join(cells)} |")


def _macro_f1(truth: Floats, decided: Floats) -> float:
    return float(f1_score(truth, decided, average="macro"))


def _quadratic_kappa(truth: Floats, decided: Floats) -> float:
    return float(cohen_kappa_score(truth, decided, weights="quadratic"))


@app.command()
def anew(
    model: Annotated[str, typer.Argument(help="Folder or name of a trained model.")],
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    name: Annotated[str, typer.Option("--set")] = "medmnist",
    sizes: Annotated[list[int], typer.Option(help="Images to calibrate on.")] = [50, 100, 200],  # noqa: B006
    n_draws: int = 10,
) -> None:
    """Measure a model on a test part that is another mixture than the images it was trained on.

    As it is, and after ``calibrate`` on some images of this part; both on the other ones, which are
    drawn anew each time. Means over the draws, as Markdown.
    """
    part = table_of(DATA_SETS[name], data).part("test")
    images, labels = part.images, np.asarray(part.labels)
    if isinstance(images, list):
        images = np.array([str(path) for path in images])
    print("| calibrated on | measured on | error as it is | calibrated | likelihood | calibrated |")
    print("|---|---|---|---|---|---|")
    for size in sizes:
        found = []
        for seed in range(n_draws):
            rest, own = train_test_split(
                np.arange(len(labels)), test_size=size, random_state=seed, stratify=labels
            )
            clf = DiffMICClassifier.from_pretrained(model, device="cpu").set_params(verbose=0)
            before = clf.evaluate(images[rest], labels[rest], n_bootstrap=0)
            clf.calibrate(images[own], labels[own])
            after = clf.evaluate(images[rest], labels[rest], n_bootstrap=0)
            found.append(
                [r["diffusion"][metric] for metric in ("ece_mass", "nll") for r in (before, after)]
            )
        cells = [f"{mean:.3f} ± {sd:.3f}" for mean, sd in zip(*_moments(found), strict=True)]
        print(f"| {size} | {len(rest)} | " + " | ".join(cells) + " |", flush=True)


def _moments(rows: list[list[float]]) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column."""
    return np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)


@app.command()
def grades(
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    seeds: Annotated[list[int], typer.Option()] = [0],  # noqa: B006
    name: Annotated[str, typer.Option("--set")] = "aptos",
    work: Annotated[Path, typer.Option(help="Where networks are kept.")] = HERE / ".cache",
    verbose: int = 1,
) -> None:
    """Quadratic kappa on the validation part, cross-fitted, for losses and decisions.

    Losses: the recipe's, and with the ranked probability score at several weights in stage two.
    Decisions: the most probable grade, the smallest expected quadratic cost, and the cut points.
    """
    print("| seed | loss | likelihood | most probable | quadratic cost | cut points | accuracies |")
    print("|---|---|---|---|---|---|---|")
    for seed in seeds:
        job = Job(name, DATA_SETS[name], seed, load(DATA_SETS[name], seed, data), work, verbose)
        part, task = job.parts["val"], job.parts.task
        prior = METHODS["prior"].train(job)("val").logits("prior", task)
        for loss, how in {"prior alone": METHODS["prior"], **GRADES}.items():
            logits = how.train(job)("val").logits(how.stage, task)
            beside = prior if how.beside else None
            reading = Reading(logits, beside, part.targets, part.weights, task)
            nll, decided = cross_fitted_decisions(reading, seed)
            y = part.targets.argmax(dim=1).numpy()
            kappas = [_quadratic_kappa(y, d) for d in decided]
            accuracies = "/".join(f"{accuracy_score(y, d):.3f}" for d in decided)
            cells = [str(seed), loss, f"{nll:.4f}", *(f"{k:.4f}" for k in kappas), accuracies]
            print("| " + " | ".join(cells) + " |", flush=True)


@app.command()
def weights(
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    sets: Annotated[list[str], typer.Option(help="Names of data sets.")] = list(DATA_SETS),  # noqa: B006
    seeds: Annotated[list[int], typer.Option()] = [0, 1, 2],  # noqa: B006
    small: Annotated[bool, typer.Option("--small", help="As accuracy.py run --small.")] = False,
    results: File = HERE / "results" / "weights.csv",
    work: Annotated[Path, typer.Option(help="Where networks are kept.")] = HERE / ".cache",
) -> None:
    """Likelihood by the penalty on unequal weights of a stage and the prior, as Markdown.

    Cross-fitted on the validation part, of the diffusion and of a re-trained linear head.
    """
    columns = ["set", "seed", "method", "image_size", "max_epochs"]
    for seed, name in itertools.product(seeds, sets):
        data_set = DATA_SETS[name].small() if small else DATA_SETS[name]
        runs = [(name, seed, m, data_set.image_size, data_set.max_epochs) for m in WEIGHED]
        if results.is_file():
            done = set(pd.read_csv(results)[columns].itertuples(index=False, name=None))
            runs = [run for run in runs if run not in done]
        if not runs:
            continue
        parts, place = load(data_set, seed, data), work / "small" if small else work
        job = Job(name, data_set, seed, parts, place, 0)
        part, task = job.parts["val"], job.parts.task
        prior = METHODS["prior"].train(job)("val").logits("prior", task)
        for run in runs:
            how = METHODS[run[2]]
            logits = how.train(job)("val").logits(how.stage, task)
            reading = Reading(logits, prior, part.targets, part.weights, task)
            add_rows(results, dict(zip(columns, run, strict=True)), reading)
    print(weights_table(pd.read_csv(results)))


def add_rows(results: Path, run: dict[str, Any], reading: Reading) -> None:
    """Of each penalty the negative log-likelihood, and the stage's weight of the whole part."""
    rows = []
    for images in PENALTIES:
        fitted = calibrated(reading, images)
        measured = {"images": images, "nll": round(cross_fitted_nll(reading, images), 5)}
        measured["weight"] = round(1 / fitted.temperature, 4)
        rows.append(run | measured | {"prior_weight": round(fitted.prior_weight, 4)})
    pd.DataFrame(rows).to_csv(results, mode="a", header=not results.is_file(), index=False)


def calibrated(reading: Reading, both_count: float) -> Calibration:
    """Calibration of a stage and the prior, with the weight of that penalty in images."""
    return Calibration.fit(
        reading.logits,
        reading.targets,
        reading.task,
        prior_logits=reading.prior_logits,
        weights=reading.weights,
        both_count=both_count,
    )


def cross_fitted_nll(reading: Reading, both_count: float) -> float:
    """Negative log-likelihood under calibrations fitted on the other folds; a mean of divisions."""
    found = []
    for seed in range(DIVISIONS):
        folds = balanced_folds(reading.targets, FOLDS, seed)
        logits = reading.logits.double().clone()
        for fold in range(FOLDS):
            inside = folds == fold
            calibration = calibrated(reading[~inside], both_count)
            part = reading[inside]
            logits[inside] = calibration.logits(part.logits, part.prior_logits).double()
        found.append(mean_nll(logits, reading.targets, reading.task, reading.weights))
    return float(np.mean(found))


def weights_table(rows: pd.DataFrame) -> str:
    """Means over the runs of a set, and over the sets the change from no penalty, as Markdown.

    The change has its standard error over the runs; *no weight*: runs of which the stage or the
    prior has less than a hundredth of the weight.
    """
    sets = list(dict.fromkeys(rows["set"]))
    lines = [
        f"| method | images | {' | '.join(sets)} | less no penalty | better | no weight |",
        "|---" * (len(sets) + 5) + "|",
    ]
    for method, of_method in rows.groupby("method", sort=False):
        keys = ["set", "seed", "image_size"]
        runs = of_method.pivot(index=keys, columns="images", values="nll")
        for images in runs.columns:
            changes = runs[images] - runs[0]
            means = runs[images].groupby(level="set").mean()
            cells = [str(method), f"{images:g}", *(f"{means[name]:.4f}" for name in sets)]
            by_set = changes.groupby(level="set")
            error = np.sqrt((by_set.var() / by_set.size()).sum()) / len(sets)
            cells.append(f"{by_set.mean().mean():+.4f} ± {error:.4f}")
            cells.append(f"{(changes < 0).sum()} of {len(changes)}")
            both = of_method.loc[of_method["images"] == images, ["weight", "prior_weight"]]
            shares = both.min(axis=1) / both.sum(axis=1)
            cells.append(f"{(shares < NONE).sum()} of {len(both)}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cross_fitted_decisions(reading: Reading, seed: int) -> tuple[float, list[Floats]]:
    """Likelihood, and decisions of the three kinds by mappings fitted on the other folds."""
    folds = balanced_folds(reading.targets, FOLDS, seed)
    proba = np.zeros(tuple(reading.targets.shape))
    cuts = np.zeros((len(proba), proba.shape[1] - 1))
    for fold in range(FOLDS):
        inside, others = folds == fold, reading[folds != fold]
        calibration = others.fitted()
        proba[inside.numpy()] = reading[inside].proba(calibration)
        cuts[inside.numpy()] = kappa_cuts(others.proba(calibration))
    expected = expected_position(proba)
    y = reading.targets.argmax(dim=1).numpy()
    nll = float(-np.log(proba[np.arange(len(y)), y]).mean())
    by_cuts = (expected[:, None] >= cuts).sum(axis=1)
    return nll, [proba.argmax(axis=1), expected.round().astype(int), by_cuts]


if __name__ == "__main__":
    app()
