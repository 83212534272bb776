"""``diffmic models``, ``info``, ``export`` and ``push``."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .loading import ModelArgument, image_files, load
from .messages import say

_JSON = Annotated[bool, typer.Option("--json", help="Write an object of JSON.")]


models = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")


@models.callback()
def listed(
    context: typer.Context,
    as_json: _JSON = False,
) -> None:
    """List the models that have a short name, and where their weights are.

    **Examples**

        diffmic models
        diffmic models --json | jq 'keys'
        diffmic models get my-group/breast-ultrasound --out breast
    """
    if context.invoked_subcommand is not None:
        return
    from ..published import REGISTRY, list_pretrained

    at_hand = list_pretrained()
    told = {
        name: at_hand.get(
            name,
            f"{entry.summary} Not published: in a checkout of diffmic's repository, load "
            f"zoo/models/{name}.",
        )
        for name, entry in REGISTRY.items()
    }
    if as_json:
        found = {name: {"summary": t, "at_hand": name in at_hand} for name, t in told.items()}
        typer.echo(json.dumps(found, indent=2))
        return
    width = max(map(len, told))
    for name, text in told.items():
        typer.echo(f"{name:<{width}}  {text}")


@models.command()
def get(
    name: Annotated[str, typer.Argument(help="Short name, or org/name on the Hugging Face Hub.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to copy it to; without it, it stays in a cache."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
) -> None:
    """Get a model, check its files, and print the folder in which it is.

    It is downloaded from the Hugging Face Hub once, unless it comes with diffmic. The
    weights are compared with the checksum of its configuration, and for a short name with
    that of this version of diffmic.

    **Examples**

        diffmic models get my-group/breast-ultrasound
        diffmic models get my-group/breast-ultrasound --out breast --revision v2
        diffmic models get diffmic-v2-aptos --out aptos
    """
    from ..hub import get_model

    folder = get_model(name, out, revision=revision)
    say("not a medical device.")
    typer.echo(str(folder))


def info(model: ModelArgument, as_json: _JSON = False) -> None:
    """Tell what a model is: classes, images, network, and what was measured in its fit.

    **Examples**

        diffmic info diffmic-v2-aptos
        diffmic info my-model --json | jq .classes
    """
    clf = load(model, "cpu")
    fitted, card = clf.model_, clf.card_
    backbone = clf.backbone if isinstance(clf.backbone, str) else type(clf.backbone).__name__
    what: dict[str, Any] = {
        "model": model,
        "summary": card.summary,
        "task": fitted.task.name,
        "classes": clf.class_names_,
        "image_size": fitted.image_size,
        "channels": fitted.channels,
        "backbone": backbone,
        "parameters": sum(p.numel() for p in clf.network_.parameters()),
        "num_steps": clf.num_steps,
        "n_draws": clf.n_draws,
        "data": card.dataset,
        "licence": card.license or card.license_note,
        "limits": card.limits,
        "versions": dict(clf.versions_),
        "validation": {stage: dict(found) for stage, found in clf.validation_scores_.items()},
        "test": {stage: dict(found) for stage, found in card.test_scores.items()},
    }
    if as_json:
        typer.echo(json.dumps(what, indent=2))
        return
    for name, value in what.items():
        if name == "validation":
            _echo_scores("validation part of the fit:", value)
        elif name == "test":
            _echo_scores("test part:", value)
        elif value not in ("", None, {}):
            if isinstance(value, dict):
                value = ", ".join(f"{package} {number}" for package, number in value.items())
            elif isinstance(value, list):
                value = ", ".join(value)
            elif name == "parameters":
                value = f"{value:,}"
            typer.echo(f"{name.replace('_', ' ') + ':':<14}{value}")
    typer.echo("Not a medical device.")


def _echo_scores(heading: str, scores: Mapping[str, Mapping[str, float]]) -> None:
    """A row for each metric and a column for each stage."""
    from ..tasks import METRIC_WORDS

    stages = sorted(scores, key=lambda stage: stage != "prior")
    if stages:
        names = "".join(f"{stage.replace('_', ' '):>16}" for stage in stages)
        typer.echo(f"{heading:<32}{names}")
    for metric in scores[stages[0]] if stages else ():
        figures = "".join(f"{scores[stage].get(metric, math.nan):16.3f}" for stage in stages)
        typer.echo(f"  {METRIC_WORDS.get(metric, metric):<30}{figures}")


def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="File, such as model.onnx.")],
    num_steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")] = None,
    n_draws: Annotated[int | None, typer.Option(min=1, help="Draws that are averaged.")] = None,
    precision: Annotated[
        str, typer.Option(help="Weights of an ONNX file: float32, float16 or int8.")
    ] = "float32",
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="File, folder or pattern: images on which float16 or int8 is compared with "
            "float32, some hundred."
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference of a probability that is accepted.")
    ] = 0.02,
) -> None:
    """Export a model as one file, from images to calibrated probabilities.

    With the suffix .pt2 it is a program of torch.export, otherwise an ONNX file, with which
    diffmic.runtime.OnnxClassifier predicts without torch (pip install 'diffmic[onnx]').

    **Examples**

        diffmic export my-model --out model.onnx
        diffmic export my-model --out fast.onnx --num-steps 1
        diffmic export my-model --out small.onnx --precision float16 --images scans/
        diffmic export my-model --out model.pt2
    """
    sampling: dict[str, Any] = {"num_steps": num_steps, "n_draws": n_draws}
    if out.suffix == ".pt2":
        if precision != "float32" or images:
            raise InputError("--precision and --images are for ONNX files, not for .pt2.")
        typer.echo(str(load(model, "cpu").export_torch(out, **sampling)))
        return
    named = list(image_files(images or ()))
    if faults := [f"{each.name}: {each.fault}" for each in named if each.fault]:
        raise InputError(f"--images: {faults[0]}")
    files = [each.name for each in named] if images else None
    how: dict[str, Any] = {"precision": precision, "images": files, "tolerance": tolerance}
    typer.echo(str(load(model, "cpu").export_onnx(out, **sampling, **how)))


def push(
    model: ModelArgument,
    repository: Annotated[str, typer.Argument(help="Repository on the Hub, org/name.")],
    private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False,
    create_pr: Annotated[
        bool, typer.Option("--pull-request", help="Open a pull request instead of a commit.")
    ] = False,
    message: Annotated[str | None, typer.Option(help="Message of the commit.")] = None,
) -> None:
    """Upload a model to the Hugging Face Hub: configuration, weights and card, in one commit.

    Log in first with 'hf auth login', or set HF_TOKEN.

    **Examples**

        diffmic push my-model my-group/breast-ultrasound --private
    """
    clf = load(model, "cpu")
    url = clf.push_to_hub(repository, private=private, create_pr=create_pr, commit_message=message)
    typer.echo(url)
