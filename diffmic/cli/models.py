"""``diffmic info``, ``models``, ``export`` and ``push``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .loading import ModelArgument, load

_JSON = Annotated[bool, typer.Option("--json", help="Write an object of JSON.")]


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
    }
    if as_json:
        typer.echo(json.dumps(what, indent=2))
        return
    for name, value in what.items():
        if name == "validation":
            typer.echo("validation part of the fit:")
            for stage, found in value.items():
                told = ", ".join(f"{metric} {figure:.3f}" for metric, figure in found.items())
                typer.echo(f"  {stage.replace('_', ' ')}: {told}")
        elif value not in ("", None, {}):
            if isinstance(value, dict):
                value = ", ".join(f"{package} {number}" for package, number in value.items())
            elif isinstance(value, list):
                value = ", ".join(value)
            elif name == "parameters":
                value = f"{value:,}"
            typer.echo(f"{name.replace('_', ' ') + ':':<14}{value}")
    typer.echo("Not a medical device.")


def models(as_json: _JSON = False) -> None:
    """List the models that have a short name, and where their weights are.

    **Examples**

        diffmic models
        diffmic models --json | jq 'keys'
    """
    from ..hub import list_pretrained
    from ..hub.names import REGISTRY

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


def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="File, such as model.onnx.")],
    num_steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")] = None,
    n_draws: Annotated[int | None, typer.Option(min=1, help="Draws that are averaged.")] = None,
) -> None:
    """Export a model as one ONNX file, from images to calibrated probabilities.

    diffmic.runtime.OnnxClassifier predicts with it, without torch. Needs
    pip install 'diffmic[onnx]'.

    **Examples**

        diffmic export my-model --out model.onnx
        diffmic export my-model --out fast.onnx --num-steps 1
    """
    clf = load(model, "cpu")
    typer.echo(str(clf.export_onnx(out, num_steps=num_steps, n_draws=n_draws)))


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
