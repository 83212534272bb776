"""What a distribution over labels is for: places where one might tell more than a probability.

    python benchmarks/distribution.py run --data FOLDER     all experiments, on validation parts
    python benchmarks/distribution.py table                 what came of it

The experiments: "opinions" (several opinions a case), "sets" (whole sets of labels), "twins" (the
same where labels do depend on each other), "wrong" (wrong labels, with those of neighbours) and
"views" (views of an image as regions). Networks are kept in ``--work``, as those of
``accuracy.py run`` are.
"""

import csv
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from accuracy import HERE, circumstances
from accuracy_bench.encoders import Job
from accuracy_bench.results import read
from accuracy_bench.tasks import load
from distribution_bench import findings, neighbours, opinions, views
from distribution_bench.jobs import Experiment, Row

RESULTS = HERE / "results" / "distribution.csv"
COLUMNS = (
    *("experiment", "set", "seed", "method", "against", "metric", "value", "error", "n_images"),
    *("image_size", "max_epochs", "details", "settings", "versions", "processor", "threads"),
    "date",
)
EXPERIMENTS: dict[str, Experiment] = {
    "opinions": opinions.EXPERIMENT,
    "sets": findings.EXPERIMENT,
    "twins": findings.TWINS,
    "wrong": neighbours.EXPERIMENT,
    "views": views.EXPERIMENT,
}
app = typer.Typer(add_completion=False, help=__doc__)
File = Annotated[Path, typer.Option(help="CSV file of the results.")]


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder with the data sets.")],
    experiments: Annotated[list[str], typer.Option(help="Their names.")] = list(EXPERIMENTS),  # noqa: B006
    seeds: Annotated[list[int], typer.Option()] = [0, 1, 2],  # noqa: B006
    results: File = RESULTS,
    work: Annotated[Path, typer.Option(help="Where networks are kept.")] = HERE / ".cache",
) -> None:
    """Measure, and replace the rows of an experiment and a seed."""
    if unknown := set(experiments) - set(EXPERIMENTS):
        raise typer.BadParameter(f"No {sorted(unknown)}; there are {list(EXPERIMENTS)}.")
    for name in experiments:
        experiment = EXPERIMENTS[name]
        for seed in seeds:
            of = experiment.data_set
            job = Job(experiment.name, of, seed, load(of, seed, data), work, 0)
            told = {"experiment": name, "set": job.name, "seed": seed}
            told |= circumstances(job, experiment.recipe)
            told["details"] = json.dumps(experiment.details)
            new = [told | _rounded(row) for row in experiment.rows(job)]
            mine = (name, str(seed))
            kept = [row for row in read(results) if (row["experiment"], row["seed"]) != mine]
            results.parent.mkdir(parents=True, exist_ok=True)
            with results.open("w", newline="") as stream:
                writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
                writer.writeheader()
                writer.writerows([*kept, *new])
            print(f"{name}, seed {seed}: {len(new)} rows", flush=True)


def _rounded(row: Row) -> Row:
    return {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}


@app.command()
def table(results: File = RESULTS) -> None:
    """Means and deviations over the seeds; differences of each seed, as Markdown."""
    groups: dict[tuple[str, ...], dict[tuple[str, str], list[dict[str, str]]]] = {}
    for row in read(results):
        key = row["experiment"], row["set"], row["metric"]
        groups.setdefault(key, {}).setdefault((row["method"], row["against"]), []).append(row)
    for key, of in groups.items():
        print(f"\n{', '.join(key)}\n\n| method | seeds | value |\n|---|---|---|")
        differences = []
        for (method, against), runs in of.items():
            values = np.array([float(row["value"]) for row in runs])
            if against:
                each = ", ".join(
                    f"{float(r['value']):+.3f} ± {float(r['error']):.3f}" for r in runs
                )
                differences.append(f"| {method} | {against} | {values.mean():+.3f} | {each} |")
                continue
            spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
            print(f"| {method} | {len(runs)} | {values.mean():.3f}{spread} |")
        if differences:
            print("\n| method | ahead of | mean | each seed ± standard error |\n|---|---|---|---|")
            print("\n".join(differences))


if __name__ == "__main__":
    app()
