"""``diffmic explain``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .loading import Device, ModelArgument, image_files, load, stage_of
from .messages import NOT_ALL, say
from .predicting import shown


def explain(
    model: ModelArgument,
    images: Annotated[list[str], typer.Argument(help="As for predict.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for a picture of each image (needs matplotlib)."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Show where a model looked: regions, their attention, and pictures of them.

    JSON lines on standard output: as by predict, and regions (x0, y0, x1, y1 in pixels of the
    image) with their attention. With `--out`, a picture of each image (eye-regions.png for
    eye.jpg) with the evidence for the class that is predicted, of several labels the most probable.

    **Examples**

        diffmic explain my-model eye.jpg
        diffmic explain my-model scans/ --out pictures > regions.jsonl
    """
    if out is not None:
        from ..plots.style import pyplot

        pyplot()  # tells how to install it
        import matplotlib

        matplotlib.use("Agg")
        out = out.expanduser()
        out.mkdir(parents=True, exist_ok=True)
    from ..estimator.rows import Asked, rows_of

    clf = load(model, device)
    stage = stage_of(clf, None)
    used: set[str] = set()
    failed = 0
    files = image_files(images)
    # All are known before a picture is drawn, which may be into one of the folders.
    for named in files if out is None else list(files):
        fault = named.fault
        if not fault:
            try:
                proba = clf.predict_proba([named.name], stage=stage)
                found = clf.explain([named.name])
            except (InputError, OSError) as reason:
                fault = " ".join(str(reason).split())
        if fault:
            failed += 1
            say(f"{named.name}: {fault}")
            continue
        row: dict[str, Any] = shown(next(rows_of(clf, [named.name], proba, Asked(stage))))
        row["regions"] = found.boxes[0].astype(float).round(1).tolist()
        row["attention"] = found.attention[0].astype(float).round(4).tolist()
        if out is not None:
            label, names = row["predicted"], clf.class_names_  # a list of labels: multi-label
            of = int(proba[0].argmax()) if isinstance(label, list) else names.index(label)
            row["picture"] = str(_picture(named.name, found, label, of, out, used))
        typer.echo(json.dumps(row))
    if out is not None:
        say(f"drew {len(used)} picture(s) in {out}")
    if failed:
        say(f"{failed} image(s) could not be read.")
        raise typer.Exit(NOT_ALL)


def _picture(
    name: str, found: Any, label: str | list[str], of: int, out: Path, used: set[str]
) -> Path:
    """Draw an image with its regions, and the evidence for a class, into a file of its own."""
    import matplotlib.pyplot as plt

    from ..datasets.image_files import without_suffix
    from ..plots import plot_regions

    # Another name than the image's, which may lie in the same folder.
    stem = f"{without_suffix(Path(name).name)}-regions"
    number = 1
    while (file := f"{stem}{'' if number == 1 else f'-{number}'}.png").casefold() in used:
        number += 1
    used.add(file.casefold())  # on some systems "A" and "a" are one file
    axes = plot_regions(name, found, saliency=of)
    axes.set_title(", ".join(label) if isinstance(label, list) else label, fontsize=8)
    plt.savefig(out / file, dpi=150, bbox_inches="tight")
    plt.close("all")
    return out / file
