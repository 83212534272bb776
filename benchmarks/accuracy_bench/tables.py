"""Tables of results, as Markdown."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from .methods import ABLATIONS, FACTORS
from .results import POOLED, Differences, Results, differences, summary


def overview(rows: list[dict[str, str]], part: str, named: Sequence[str]) -> str:
    """Macro F1 / negative log-likelihood, a line per set and a column per method of these names."""
    cells = {
        (name, method): f"{metrics['macro_f1'][0]:.3f} / {metrics['nll'][0]:.3f}"
        for name, method, _, metrics in summary(rows, part)
    }
    methods = [m for m in named if any(method == m for _, method in cells)]
    lines = [f"| set | {' | '.join(methods)} |", "|---" * (len(methods) + 1) + "|"]
    for name in dict.fromkeys(name for name, _ in cells):
        lines.append(f"| {name} | " + " | ".join(cells.get((name, m), "") for m in methods) + " |")
    return "\n".join(lines) + "\n"


def means_table(rows: list[dict[str, str]], part: str, names: Sequence[str]) -> str:
    """A line per set and method; a metric that a set lacks is left out."""
    lines = ["| set | method | runs | " + " | ".join(names) + " |", "|---" * (len(names) + 3) + "|"]
    for name, method, n_runs, metrics in summary(rows, part):
        cells = [
            "{:.3f} ± {:.3f}".format(*metrics[m]).removesuffix(" ± nan") if m in metrics else ""
            for m in names
        ]
        lines.append(f"| {name} | {method} | {n_runs} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def differences_table(found: Differences) -> str:
    """A method against each opponent, on each set and pooled."""
    lines = [
        "| against | set | macro F1 | runs ahead | likelihood | runs ahead |",
        "|---" * 6 + "|",
    ]
    n_sets = Counter(opponent for opponent, name in found if name != POOLED)
    for (opponent, name), difference in found.items():
        cells = [opponent, f"{name} over {n_sets[opponent]}" if name == POOLED else name]
        for values, ahead in zip(
            (difference.macro_f1, difference.nll), difference.runs_ahead, strict=True
        ):
            cells += [interval(values), f"{ahead} of {difference.n_runs}"]
        lines.append("| " + " | ".join(f"**{c}**" if name == POOLED else c for c in cells) + " |")
    return "\n".join(lines) + "\n"


def backbones_table(kept: Sequence[Results], part: str) -> str:
    """Macro F1 / negative log-likelihood by backbone, of the runs that all files have.

    That is, of the sets and seeds of which each file has all those of these methods that are in it.
    Means over the sets; differences, above zero where the diffusion is better, pooled over them.
    Below, of the test part, how much better each further backbone is than the first.

    Raises
    ------
    ValueError
        There is no such run, or the files differ in more than the backbone.
    """
    opponents = ("plain", "prior", "head_linear_stacked")
    methods = (*opponents, "diffusion")
    ahead = [f"diffusion − {name}" for name in opponents]
    files = ", ".join(str(of.file) for of in kept)
    rows = [[r for r in of.rows() if r["part"] == part and r["method"] in methods] for of in kept]
    had = [
        {(r["set"], int(r["seed"])) for r in of if r["method"] == name}
        for of in rows
        for name in {row["method"] for row in of}
    ]
    runs = set.intersection(*had) if all(rows) else set()
    if not runs:
        raise ValueError(f"No run of these methods is in all of {files}: {', '.join(methods)}.")
    rows = [[row for row in of if (row["set"], int(row["seed"])) in runs] for of in rows]
    for name in sorted({name for name, _ in runs}):
        found = {_conditions(row) for of in rows for row in of if row["set"] == name}
        if len(found) > 1:
            shown = "; ".join(", ".join(conditions) for conditions in sorted(found))
            raise ValueError(f"{files} differ in more than the backbone, on {name}: {shown}.")
    names, means, changes = [], [], []
    for of, mine in zip(kept, rows, strict=True):
        names.append(" ".join(dict.fromkeys(row["backbone"] for row in mine)))
        found = _means(mine, part)
        cells = [found.get(name, "") for name in methods]
        if part == "test":
            pooled = differences(of, "diffusion", opponents, runs)
            cells += [_pooled(pooled, name) for name in opponents]
            if of is not kept[0]:
                better = [
                    _pooled(differences(of, name, [name], runs, kept[0]), name) for name in methods
                ]
                changes.append([f"{names[-1]} − {names[0]}", *better])
        means.append(cells)
    head = [*methods, *(ahead if part == "test" else ())]
    lines = [f"| backbone | runs | {' | '.join(head)} |", "|---" * (2 + len(head)) + "|"]
    lines += [
        f"| {name} | {len(runs)} | {' | '.join(cells)} |"
        for name, cells in zip(names, means, strict=True)
    ]
    if changes:
        lines += ["", f"| backbones | {' | '.join(methods)} |", "|---" * (1 + len(methods)) + "|"]
        lines += [f"| {' | '.join(cells)} |" for cells in changes]
    return "\n".join(lines) + "\n"


def _conditions(row: dict[str, str]) -> tuple[str, ...]:
    """On what the methods of a run have learnt, but for the backbone."""
    return (
        f"{row['image_size']} pixels",
        f"{row['max_epochs']} epochs",
        f"{json.loads(row['settings']).get('n_training', 'all')} training images",
        f"a share of {float(row['wrong_labels'] or 0):g} wrong labels",
    )


def _means(rows: list[dict[str, str]], part: str) -> dict[str, str]:
    """Macro F1 / negative log-likelihood of each method, means over the sets."""
    of_sets: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _, method, _, metrics in summary(rows, part):
        of_sets[method].append((metrics["macro_f1"][0], metrics["nll"][0]))
    return {
        method: "{:.3f} / {:.3f}".format(*np.mean(values, axis=0))
        for method, values in of_sets.items()
    }


def _pooled(found: Differences, opponent: str) -> str:
    """Macro F1 and likelihood over the sets, with their intervals; nothing, if there are none."""
    pooled = found.get((opponent, POOLED))
    return "" if pooled is None else "<br>".join(map(interval, (pooled.macro_f1, pooled.nll)))


def interval(values: np.ndarray) -> str:
    """A difference with its 95 % interval; above zero ours is better."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return f"{values[0]:+.3f} ({low:+.3f} to {high:+.3f})"


def changes_table(rows: Sequence[dict[str, str]], part: str, base: str) -> str:
    """Macro F1 / likelihood of changes of a method, and what they change in the mean.

    A line per method and a column per set, with means over the runs. A change is the mean over the
    sets of the mean over the runs on the same split, with the standard error of these differences
    where a set has several runs.
    """
    runs: dict[str, dict[tuple[str, str], tuple[float, float]]] = defaultdict(dict)
    for row in rows:
        if row["part"] == part:
            values = float(row["macro_f1"]), float(row["nll"])
            runs[row["method"]][row["set"], row["seed"]] = values
    order = [base, "prior", *ABLATIONS, *runs]  # the recipe's in their order, others as they ran
    methods = [m for m in dict.fromkeys(order) if m in runs]
    sets = sorted({name for name, _ in runs[base]})
    lines = [
        f"| change | {' | '.join(sets)} | mean, less the first row's "
        "| F1 ahead | likelihood ahead |",
        "|---" * (len(sets) + 4) + "|",
    ]
    for method in methods:
        cells, means, errors, ahead, n_runs = [], [], [], np.zeros(2, int), 0
        for name in sets:
            pairs = [
                (values, runs[base][key])
                for key, values in runs[method].items()
                if key[0] == name and key in runs[base]
            ]
            if not pairs:
                cells.append("")
                continue
            own, others = np.array(pairs).transpose(1, 0, 2)  # (runs, 2) each
            cells.append("{:.3f} / {:.3f}".format(*own.mean(axis=0)))
            changes = own - others
            means.append(changes.mean(axis=0))
            errors.append(changes.var(axis=0, ddof=1) / len(changes) if len(changes) > 1 else None)
            ahead += (changes * (1, -1) > 0).sum(axis=0)
            n_runs += len(changes)
        told = [""] * 3
        if method != base:
            mean = np.mean(means, axis=0)
            told = ["{:+.3f} / {:+.3f}".format(*mean)]
            if all(error is not None for error in errors):
                error = np.sqrt(np.sum(errors, axis=0)) / len(errors)
                told = [
                    "{:+.3f} ± {:.3f} / {:+.3f} ± {:.3f}".format(
                        *np.stack([mean, error], 1).ravel()
                    )
                ]
            told += [f"{count} of {n_runs}" for count in ahead]
        label = {"diffusion": "none: the recipe", "prior": "its prior alone"}.get(method, method)
        lines.append(f"| {label} | {' | '.join(cells)} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def complete(runs: Collection[tuple[str, str]], methods: Iterable[str]) -> list[str]:
    """The sets on which all methods have run."""
    wanted = set(methods)
    return sorted(
        name for name in {name for _, name in runs} if all((m, name) in runs for m in wanted)
    )


def over_sets(
    runs: dict[tuple[str, str], dict[str, tuple[float, float]]], named: dict[float, str]
) -> dict[float, dict[str, float]]:
    """Means over the sets that have them all of the ablations' metrics, by a factor's value."""
    sets = complete(runs, ["prior", *(m for values in FACTORS.values() for m in values.values())])
    return {
        value: {of: float(np.mean([runs[m, s][of][0] for s in sets])) for of in ("macro_f1", "nll")}
        for value, m in named.items()
    }
