"""Accuracy: the diffusion stage beside its prior, plain fine-tuning and re-trained heads.

    python benchmarks/accuracy.py run --data FOLDER --results FILE    all sets, on validation
    ... --final                                                       and on test, once committed
    python benchmarks/accuracy.py own IMAGES                   on labelled images of your own
    python benchmarks/accuracy.py steps --data FOLDER          DiffMIC (v1) and v2, by sampler steps
    python benchmarks/accuracy.py table                        what came of it
    python benchmarks/accuracy.py backbones FILE FILE ...      of files of run --backbone NAME

A run that was stopped goes on where it was: trained networks and their conditions are kept in the
folder ``--work``, results are rows of a CSV file.
"""

import datetime
import itertools
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import joblib
import numpy as np
import torch
import typer
from accuracy_bench.beyond import abstaining, label_sets
from accuracy_bench.encoders import DEFAULT_ARCHITECTURE, DEFAULTS, DEVICE, Job
from accuracy_bench.methods import ABLATIONS, FACTORS, METHODS, OF_REGIONS, REGIONS, Method
from accuracy_bench.picture import draw_curves, draw_differences
from accuracy_bench.results import (
    METRICS,
    Answers,
    Results,
    differences,
    summary,
)
from accuracy_bench.stage_one import AVERAGED, CHANGES, LEARNERS, evidence_of_states
from accuracy_bench.steps import RUNS, STEPPED
from accuracy_bench.tables import (
    backbones_table,
    changes_table,
    differences_table,
    means_table,
    over_sets,
    overview,
)
from accuracy_bench.tasks import DATA_SETS, PART_NAMES, DataSet, load, table_of
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from diffmic.data import TargetEncoding
from diffmic.datasets import read_csv
from diffmic.image_table import LabelledTable
from diffmic.inference import Calibration, Evidence
from diffmic.training import Recipe
from diffmic.training.readings import Reading

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "accuracy.csv"
SMALL_RESULTS = HERE / "results" / "accuracy_small.csv"
BEST_PLAIN = "larger by a third: plain"  # the one change that was tried of plain fine-tuning
V1 = ("diffmic-v1 60 steps", "diffmic-v1 last 60")  # over the whole schedule, and as its authors
COMPARED = (*METHODS, BEST_PLAIN, *V1)
PICTURED = (
    *("prior", "plain", BEST_PLAIN, "plain_tta", "head_linear"),
    *("head_linear_stacked", "head_hidden", "head_hidden_stacked"),
)
app = typer.Typer(add_completion=False, help=__doc__)
File = Annotated[Path, typer.Option(help="CSV file of the results.")]
Small = Annotated[
    bool,
    typer.Option("--small", help="At most 500 training images of 96 pixels, 12 epochs."),
]


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    sets: Annotated[list[str], typer.Option(help="Names of data sets.")] = list(DATA_SETS),  # noqa: B006
    methods: Annotated[list[str], typer.Option()] = list(METHODS),  # noqa: B006
    seeds: Annotated[list[int], typer.Option()] = [0, 1, 2],  # noqa: B006
    final: Annotated[bool, typer.Option(help="Measure on the test part, too.")] = False,
    image_size: Annotated[
        int | None, typer.Option(help="Other than the data set's own; needs --results.")
    ] = None,
    max_epochs: Annotated[
        int | None, typer.Option(help="Other than the data set's own; needs --results.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Other than the estimator's; needs --results.")
    ] = None,
    wrong_labels: Annotated[
        float,
        typer.Option(help="Share of training labels that are made wrong; needs --results."),
    ] = 0.0,
    small: Small = False,
    results: File = RESULTS,
    work: Annotated[Path, typer.Option(help="Where networks are kept.")] = HERE / ".cache",
    verbose: int = 1,
) -> None:
    """Train what has not been trained, and add a row per run."""
    sizes = {"image_size": image_size, "max_epochs": max_epochs}
    sizes = {what: value for what, value in sizes.items() if value is not None}
    if (sizes or backbone or wrong_labels or small) and results == RESULTS:
        raise typer.BadParameter("Runs unlike the others need a file of their own: --results.")
    chosen, work = data_sets(sets, work, small=small)
    for what, value in (sizes | ({"wrong": wrong_labels} if wrong_labels else {})).items():
        work = work / f"{what}-{value:g}"
    if backbone is not None:
        work = work / backbone
    chosen = {name: replace(data_set, **sizes) for name, data_set in chosen.items()}
    compare(chosen, data, methods, seeds, final, wrong_labels, results, work, verbose, backbone)


def data_sets(names: Sequence[str], work: Path, *, small: bool) -> tuple[dict[str, DataSet], Path]:
    """The data sets of these names, and where networks are kept: small ones apart."""
    if not small:
        return {name: DATA_SETS[name] for name in names}, work
    return {name: DATA_SETS[name].small() for name in names}, work / "small"


@app.command()
def own(
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder with a folder per class, or CSV file with the columns file and label; "
            "a column split, or folders train, val and test, give the split."
        ),
    ],
    image_size: int = 224,
    max_epochs: int = 20,
    augment: str = "auto",
    task: str = "auto",
    group: Annotated[str | None, typer.Option(help="Column with the patient, of a CSV.")] = None,
    methods: Annotated[list[str], typer.Option()] = ["plain", "prior", "head_linear", "diffusion"],  # noqa: B006
    seeds: Annotated[list[int], typer.Option()] = [0, 1, 2],  # noqa: B006
    final: Annotated[bool, typer.Option(help="Measure on the test part, too.")] = False,
    results: File = Path("own.csv"),
    work: Annotated[Path, typer.Option(help="Where networks are kept.")] = Path("own-networks"),
    verbose: int = 1,
) -> None:
    """Compare methods on labelled images of your own, and print the tables.

    Where there is no split, each seed draws one: 70 % training, 10 % validation, 20 % test, by
    patient, or else with near-duplicates together. Other images or settings need other --results
    and --work.
    """
    place = data.resolve()
    data_set = DataSet(place.name, image_size, max_epochs, augment=augment, task=task, group=group)
    images = table_of(data_set, place.parent)
    found = images.splits
    if found is not None and set(found.tolist()) != set(PART_NAMES):
        raise typer.BadParameter(
            f"The splits are {sorted(set(found.tolist()))}; they must be {', '.join(PART_NAMES)}, "
            "or there must be none."
        )
    check_the_same(work, results, data_set, images)
    compare(
        {place.stem: data_set}, place.parent, methods, seeds, final, 0.0, results, work, verbose
    )
    table(results, "test" if final else "val")


def check_the_same(work: Path, results: Path, data_set: DataSet, images: LabelledTable) -> None:
    """Write down what the networks of a folder are trained on, or make sure that it is this.

    Raises
    ------
    typer.BadParameter
        The folder has networks of other images or settings, or the results are of others.
    """
    told = joblib.hash((images.images, np.asarray(images.labels), images.splits))
    now = {"results": str(results.resolve()), "images": told} | asdict(data_set)
    file = work / "made-of.json"
    if not file.is_file():
        if results.is_file():
            raise typer.BadParameter(f"{results} has results of other networks: --results.")
        work.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(now, indent=1))
        return
    before = json.loads(file.read_text())
    if others := [name for name, value in now.items() if before.get(name) != value]:
        raise typer.BadParameter(
            f"{work} has networks of another {', '.join(others)}: pass other --work and --results."
        )


def compare(
    sets: Mapping[str, DataSet],
    data: Path,
    methods: Sequence[str],
    seeds: Sequence[int],
    final: bool,
    wrong_labels: float,
    results: Path,
    work: Path,
    verbose: int,
    backbone: str | None = None,
) -> None:
    """Train what has not been trained, and add a row per run."""
    kept = Results(results)
    kept.check_columns()
    backbone = backbone or str(DEFAULTS["backbone"])
    if others := {row["backbone"] for row in kept.rows()} - {backbone}:
        raise typer.BadParameter(f"{results} has runs of {', '.join(others)}: --results.")
    parts = ("val", "test") if final else ("val",)
    for seed, (name, data_set) in itertools.product(seeds, sets.items()):
        same = {
            "image_size": data_set.image_size,
            "max_epochs": data_set.max_epochs,
            "wrong_labels": wrong_labels,
        }
        todo = [m for m in methods if not all(kept.has(name, seed, m, p, **same) for p in parts)]
        if not todo:
            continue
        if final and any(kept.has(name, seed, m, "test") for m in todo):
            raise typer.BadParameter(f"{results} has {name} at another size: --results.")
        parts_of_job = load(data_set, seed, data).with_wrong_labels(wrong_labels, seed)
        job = Job(name, data_set, seed, parts_of_job, work, verbose, backbone=backbone)
        for method in todo:
            how = (METHODS | ABLATIONS | STEPPED)[method]
            for row in rows_of(job, method, how, parts, kept):
                if not kept.has(name, seed, method, row["part"], **same):
                    kept.add(row | {"wrong_labels": wrong_labels})


def rows_of(
    job: Job, method: str, how: Method, parts: Sequence[str], kept: Results
) -> list[dict[str, Any]]:
    """Train a method and measure it; calibration and thresholds come from validation."""
    started = time.perf_counter()
    evidence_of, task = how.train(job), job.parts.task
    prior_of = METHODS[how.beside].train(job) if how.beside else None

    def reading_of(part: str, evidence: Evidence) -> Reading:
        """Logits of a part, those that are weighed with them, and the truth."""
        prior = None if prior_of is None else prior_of(part).logits("prior", task)
        of = job.parts[part]
        return Reading(evidence.logits(how.stage, task), prior, of.targets, of.weights, task)

    val = reading_of("val", evidence_of("val"))
    calibration, thresholds = val.fitted(), np.empty(0)
    if task.has_thresholds:
        thresholds = val.best_thresholds(calibration)
    rows = []
    for part in parts:
        targets = job.parts[part].targets.numpy()
        evidence, of_draws = evidence_of(part), None
        reading = reading_of(part, evidence)
        proba = probabilities(calibration, reading)
        if evidence.draws is not None:
            single = [
                Evidence(evidence.prior_logits, draw[:, None]) for draw in evidence.draws.unbind(1)
            ]
            logits = [each.logits(how.stage, task) for each in single]
            of_draws = np.stack(
                [probabilities(calibration, replace(reading, logits=each)) for each in logits],
                axis=1,
            )
        numbers = np.arange(targets.shape[1])
        chosen = thresholds if thresholds.size else None  # None: the most probable class
        metrics = task.metrics(task.labels(targets, numbers), proba, numbers, chosen)
        beyond = abstaining if task.exclusive else label_sets
        metrics |= beyond(targets, proba, of_draws)
        if part == "test":
            answers = Answers(targets, proba, thresholds, job.parts.groups)
            kept.keep(job.name, job.seed, method, answers)
        absent = [
            str(c)
            for c, occurs in zip(job.parts.classes, targets.any(0), strict=True)
            if not occurs
        ]
        rows.append(
            {"set": job.name, "seed": job.seed, "method": method, "part": part}
            | {"n_images": len(targets), "absent_labels": " ".join(absent)}
            | {name: f"{value:.5f}" for name, value in metrics.items() if name in METRICS}
            | {"seconds": round(time.perf_counter() - started, 1)}
            | {"backbone": job.backbone}
            | circumstances(job, how.on(how.recipe, job))
        )
    return rows


def probabilities(calibration: Calibration, reading: Reading) -> np.ndarray:
    """Calibrated probabilities of a reading, (n, C)."""
    logits = calibration.logits(reading.logits, reading.prior_logits)
    return reading.task.probabilities(logits).numpy()


def circumstances(job: Job, recipe: Recipe) -> dict[str, Any]:
    """What a figure depends on."""
    names = ("diffmic", "torch", "timm")
    return {
        "image_size": job.data_set.image_size,
        "max_epochs": job.data_set.max_epochs,
        "settings": json.dumps(
            {"n_training": len(job.parts.train)}
            | {name: DEFAULTS[name] for name in ("num_steps", "n_draws")}  # unless the method says
            | asdict(recipe),
            separators=(",", ":"),
        ),
        "versions": " ".join(f"{name}={version(name)}" for name in names),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "date": datetime.date.today().isoformat(),
    }


def processor() -> str:
    """Name of the GPU, where there is one."""
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name(DEVICE)
    return platform.processor() or platform.machine()


@app.command()
def ablate(
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    sets: Annotated[list[str], typer.Option(help="Names of data sets.")] = list(DATA_SETS),  # noqa: B006
    methods: Annotated[list[str], typer.Option()] = ["prior", *ABLATIONS],  # noqa: B006
    seeds: Annotated[list[int], typer.Option()] = [0],  # noqa: B006
    results: File = HERE / "results" / "ablations.csv",
    work: Annotated[Path, typer.Option(help="Where networks are kept.")] = HERE / ".cache",
) -> None:
    """What each part of the recipe is worth: all but one as they are.

    With the networks of ``run``, on validation alone.
    """
    run(data, sets, methods, seeds, results=results, work=work, verbose=0)


@app.command()
def regions(
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    sets: Annotated[list[str], typer.Option(help="Names of data sets.")] = list(DATA_SETS),  # noqa: B006
    variants: Annotated[list[str], typer.Option(help="Kinds of regions.")] = list(REGIONS),  # noqa: B006
    seeds: Annotated[list[int], typer.Option()] = [0, 1, 2],  # noqa: B006
    small: Small = False,
    results: File = HERE / "results" / "region_ablation.csv",
    work: Annotated[Path, typer.Option(help="Where networks are kept.")] = HERE / ".cache",
) -> None:
    """What regions are worth: prior, local prior and diffusion with each kind of regions.

    On validation alone; zoomed regions only where the originals are larger than the images.
    """
    kept = Results(results)
    chosen, work = data_sets(sets, work, small=small)
    for seed, name, variant in itertools.product(seeds, sets, variants):
        data_set, changes = chosen[name], dict(REGIONS[variant])
        same = {"image_size": data_set.image_size, "max_epochs": data_set.max_epochs}
        todo = [m for m in OF_REGIONS if not kept.has(name, seed, f"{variant}: {m}", "val", **same)]
        if not todo or (variant == "zoom" and data_set.zoom_size is None):
            continue
        if "zoom_size" in changes:
            changes["zoom_size"] = data_set.zoom_size
        if "region_size" in changes:
            changes["region_size"] = data_set.image_size
        architecture = replace(DEFAULT_ARCHITECTURE, **changes)
        read = replace(data_set, image_size=changes.get("zoom_size", data_set.image_size))
        folder = work / f"regions-{variant}"
        job = Job(name, data_set, seed, load(read, seed, data), folder, 0, architecture)
        for method in todo:
            for row in rows_of(job, f"{variant}: {method}", OF_REGIONS[method], ("val",), kept):
                kept.add(row | {"wrong_labels": 0.0})


@app.command("stage-one")
def stage_one(
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    sets: Annotated[list[str], typer.Option(help="Names of data sets.")] = list(DATA_SETS),  # noqa: B006
    changes: Annotated[list[str], typer.Option(help="Changes of the training.")] = list(CHANGES),  # noqa: B006
    learners: Annotated[list[str], typer.Option(help="prior, plain.")] = list(LEARNERS),  # noqa: B006
    seeds: Annotated[list[int], typer.Option()] = [0, 1, 2],  # noqa: B006
    final: Annotated[bool, typer.Option(help="Measure on the test part, too.")] = False,
    small: Small = False,
    results: File = HERE / "results" / "stage_one.csv",
    work: Annotated[Path, typer.Option(help="Where networks are kept.")] = HERE / ".cache",
) -> None:
    """How stage one, and plain fine-tuning, are best trained: one change at a time.

    Changes are chosen on validation; with --final, a change that was chosen is compared with the
    methods of ``run``, in the same file.
    """
    kept = Results(results)
    kept.check_columns()
    parts_measured = ("val", "test") if final else ("val",)
    chosen, work = data_sets(sets, work, small=small)
    for what, learner, seed, name in itertools.product(changes, learners, seeds, sets):
        change, data_set = CHANGES[what], chosen[name]
        changed = change.on(data_set)
        same = {"image_size": changed.image_size, "max_epochs": changed.max_epochs}
        last = f"{what}{AVERAGED}: {learner}"
        if all(kept.has(name, seed, last, part, **same) for part in parts_measured):
            continue
        parts = load(changed, seed, data)
        if not change.applies_to(data_set, multilabel=not parts.task.exclusive):
            continue
        job = Job(name, changed, seed, parts, work / f"stage-one-{what}", 0)
        for suffix, evidence in evidence_of_states(job, change, learner).items():
            how = Method(lambda _, evidence=evidence: evidence)
            method = f"{what}{suffix}: {learner}"
            for row in rows_of(job, method, how, parts_measured, kept):
                if not kept.has(name, seed, method, row["part"], **same):
                    kept.add(row | {"wrong_labels": 0.0})


@app.command()
def steps(
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    sets: Annotated[list[str], typer.Option(help="Names of data sets.")] = ["busi"],  # noqa: B006
    seeds: Annotated[list[int], typer.Option()] = [0, 1, 2],  # noqa: B006
    length: Annotated[
        str,
        typer.Option(help="short; long: 1000 epochs, a frozen prior; hours: v1 as published."),
    ] = "short",
    final: Annotated[bool, typer.Option(help="Measure on the test part, too.")] = False,
    results: File = HERE / "results" / "steps.csv",
    work: Annotated[Path, typer.Option(help="Where networks are kept.")] = HERE / ".cache",
) -> None:
    """DiffMIC (v1) and v2 on the same backbone and prior, by the number of sampler steps.

    With the priors of ``run``. Each figure is a row; what is there is not measured again.
    """
    if length not in RUNS:
        raise typer.BadParameter(f"length is {length!r}; give one of {list(RUNS)}.")
    methods = ["prior", *RUNS[length]]
    run(data, sets, methods, seeds, final, results=results, work=work, verbose=1)


@app.command()
def table(
    results: File = RESULTS,
    part: Annotated[str, typer.Option(help="val or test.")] = "test",
    processor: Annotated[str, typer.Option(help="Only runs on one of such a name.")] = "",
    against: Annotated[
        Path | None,
        typer.Option(
            help="Another file, with the opponents on the same splits.", exists=True, dir_okay=False
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="Which is compared with the others.")] = "diffusion",
) -> None:
    """Means and deviations over runs, and paired differences with 95 % intervals, as Markdown."""
    if against is not None and part != "test":
        raise typer.BadParameter("--against compares probabilities, which are of test parts.")
    kept = Results(results, processor)
    rows = kept.rows()
    if any(row["method"] in METHODS for row in rows):
        print(overview(rows, part, COMPARED))
    print(means_table(rows, part, METRICS[:9]))
    print(means_table(rows, part, METRICS[9:]))  # of what a distribution is for
    for name in dict.fromkeys(row["set"] for row in rows):
        of_seeds = {
            row["seed"]: row["absent_labels"]
            for row in rows
            if (row["set"], row["part"]) == (name, part) and row["absent_labels"]
        }
        for seed, labels in of_seeds.items():
            print(f"Left out, because the part lacks them: {name}, seed {seed}, labels {labels}.")
    print()
    if part == "test" and against is not None:
        found = differences(kept, method, COMPARED, of_opponents=Results(against))
        if not found:
            raise typer.BadParameter(f"No run of {results} has probabilities of {against} beside.")
        print(differences_table(found))
    elif part == "test":
        opponents = [name for name in COMPARED if name != method]
        print(differences_table(differences(kept, method, opponents)))
        print("With views, against others with views:\n")
        print(differences_table(differences(kept, "diffusion_tta", ("plain_tta", "prior_tta"))))


@app.command()
def backbones(
    results: Annotated[list[Path], typer.Argument(help="CSV files of the results, one for each.")],
    part: Annotated[str, typer.Option(help="val or test.")] = "test",
) -> None:
    """Means over the sets by backbone, of the runs that all files have, as Markdown.

    Of the test part also how far the diffusion is ahead, and each backbone of the first.
    """
    try:
        print(backbones_table([Results(file) for file in results], part))
    except ValueError as reason:
        raise typer.BadParameter(str(reason)) from reason


@app.command()
def balanced(
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    name: Annotated[str, typer.Option("--set", help="One with exclusive classes.")] = "ham10000",
    results: File = RESULTS,
) -> None:
    """Balanced accuracy of the likeliest class, and of the likeliest for its share, as Markdown.

    Probabilities divided by the shares of the classes in the training part are those that would
    hold if all classes were as frequent.
    """
    labels = read_csv(data / DATA_SETS[name].folder / "labels.csv", group=DATA_SETS[name].group)
    learnt = TargetEncoding.learn(labels.labels).encode(labels.labels)[labels.splits == "train"]
    kept, shares = Results(results), learnt.mean(axis=0)
    print("| method | likeliest: balanced, accuracy | for its share: balanced, accuracy |")
    print("|---|---|---|")
    seeds = sorted({int(r["seed"]) for r in kept.rows() if r["set"] == name})
    for method in METHODS:
        found = [a for seed in seeds if (a := kept.answers(name, seed, method)) is not None]
        if not found:
            continue
        cells = []
        for divisor in (1.0, shares):
            pairs = [(a.targets.argmax(axis=1), (a.proba / divisor).argmax(axis=1)) for a in found]
            for measured in (balanced_accuracy_score, accuracy_score):
                cells.append(np.mean([measured(*pair) for pair in pairs]))
        print("| {} | {:.3f}, {:.3f} | {:.3f}, {:.3f} |".format(method, *cells))


@app.command()
def plot(
    results: File = RESULTS,
    small: Annotated[Path, typer.Option(help="CSV file of the small sets.")] = SMALL_RESULTS,
    ablations: Annotated[Path, typer.Option(help="CSV file of the ablations.")] = HERE
    / "results"
    / "ablations.csv",
    folder: Annotated[Path, typer.Option(help="Where the pictures go.")] = HERE.parent / "docs",
) -> None:
    """The differences with their intervals, and the ablated numbers as curves.

    Pooled over the small sets, and set by set at full sizes.
    """
    of_small = differences(Results(small), "diffusion", PICTURED)
    draw_differences(of_small, PICTURED, folder / "accuracy.png", pooled_alone=True)
    found = differences(Results(results), "diffusion", PICTURED)
    draw_differences(found, PICTURED, folder / "accuracy_figures.png")
    runs = {(m, name): values for name, m, _, values in summary(Results(ablations).rows(), "val")}
    draw_curves(
        {factor: over_sets(runs, named) for factor, named in FACTORS.items()},
        over_sets(runs, {0: "prior"})[0],
        folder / "ablations.png",
    )


@app.command()
def ablations(
    results: File = HERE / "results" / "ablations.csv",
    part: Annotated[str, typer.Option(help="val or test.")] = "val",
    base: Annotated[str, typer.Option(help="What the others are changes of.")] = "diffusion",
    ending: Annotated[str, typer.Option(help="Only methods whose names end so.")] = "",
) -> None:
    """What each change makes of the recipe, as Markdown: macro F1 and likelihood, set by set.

    Where a change has not run on a set the cell is empty, and means are over the others.
    """
    rows = [row for row in Results(results).rows() if row["method"].endswith(ending)]
    print(changes_table(rows, part, base))


if __name__ == "__main__":
    app()
