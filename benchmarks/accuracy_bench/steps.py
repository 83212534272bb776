"""DiffMIC (v1) and v2 on the same backbone, by the number of steps of the sampler.

All start from the job's prior. v2, and v1 with a frozen prior, learn on cached conditions, so that
the backbone sees the same images the same number of times; v1 as published learns on images,
together with its prior. In the short run all learn for as many epochs as the prior did and for as
many steps an epoch as the other methods; in the others for the papers' number of epochs of the
denoiser, each one pass over the images in batches of the papers' size.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import torch
from safetensors.torch import load_file

from diffmic.inference import Engine, Evidence, SamplingOptions, evidence_of
from diffmic.model import Conditions, VectorNetwork
from diffmic.training import Recipe
from diffmic.training.joint_stage import train_jointly
from diffmic.training.precision import to_device, training_precision
from diffmic.training.recipe import PAPER, PAPER_V1
from diffmic.training.state import History

from .encoders import (
    DEFAULTS,
    DEVICE,
    LEARNING,
    Job,
    _encoded,
    _keep_history,
    _save,
    _view,
    conditions_of,
    trained_prior,
)
from .methods import (
    BATCH,
    OURS,
    PAPER_CACHED,
    EvidenceOf,
    Method,
    diffusion,
    trained_diffusion,
)

STEPS = (1, 2, 5, 10, 60, 250, 1000)
LAST = (10, 60, 250)  # of the whole schedule, not spread over it; all 1000 are the same
EPOCHS = 1000  # of the papers' denoisers
LONG = f", {EPOCHS} epochs"  # in the names of methods that learn for so long

# At the budget of the other methods the moving average has their horizon: that of the paper, ten
# thousand steps, is longer than the run.
V1 = replace(PAPER_V1, denoiser_epochs=None, ema_decay=None, ema=OURS.ema, patience=None)
V1_LONG = replace(PAPER_V1, denoiser_epochs=EPOCHS, patience=None)
V2_LONG = replace(
    PAPER_CACHED,
    denoiser_epochs=EPOCHS,
    patience=PAPER.patience,  # all epochs, of which the best one by validation is kept
    batch_size=PAPER_V1.batch_size,
)


def frozen(recipe: Recipe) -> Recipe:
    """The recipe of v1 on cached conditions of a frozen prior, as many as those of v2."""
    names = ("cached", "n_cached_views", "steps_per_epoch")
    return replace(recipe, joint=False, **{name: getattr(PAPER_CACHED, name) for name in names})


def one_pass(recipe: Recipe, job: Job) -> Recipe:
    """The recipe with as many steps an epoch as one pass over the job's images takes."""
    return replace(recipe, steps_per_epoch=max(1, len(job.parts.train) // recipe.batch_size))


def v1(recipe: Recipe, num_steps: int, spacing: str = "trailing") -> Method:
    """DiffMIC (v1) with a number of steps of the sampler, on a grid."""

    def train(job: Job) -> EvidenceOf:
        network = trained_v1(job, recipe) if recipe.joint else trained_diffusion(job, recipe)
        encoded = conditions_of_v1 if recipe.joint else conditions_of

        def evidence(part: str) -> Evidence:
            network.process.timestep_spacing = spacing
            conditions = encoded(job, recipe, part)
            starts = range(0, len(conditions), BATCH)
            return evidence_of(
                Engine(network),
                (conditions[start : start + BATCH] for start in starts),
                "diffusion",
                SamplingOptions(num_steps, DEFAULTS["n_draws"]),
                seed=job.seed,
            )

        return evidence

    return Method(train, "diffusion", None, recipe)


def prior_of_v1(recipe: Recipe) -> Method:
    """The fused prior, after it has been trained together with the denoiser."""

    def train(job: Job) -> EvidenceOf:
        return lambda part: Evidence(conditions_of_v1(job, recipe, part).fused_logits.cpu())

    return Method(train, recipe=recipe)


@lru_cache(maxsize=1)
def trained_v1(job: Job, recipe: Recipe) -> VectorNetwork:
    """The network of v1 and its prior, trained together; it ends in its averaged state."""
    network = job.network(recipe, pretrained=False)
    assert isinstance(network, VectorNetwork)
    file = job.file(f"v1-{recipe.denoiser_epochs or job.data_set.max_epochs}-epochs.safetensors")
    to_device(network, DEVICE)
    if not file.is_file():
        network.prior.load_state_dict(trained_prior(job, OURS).prior.state_dict())
        history: History = []
        started = time.perf_counter()
        options = job.options(recipe)
        train_jointly(
            network,
            job.parts.train,
            options,
            precision=training_precision(options.precision, options.device, network.prior),
            rng=job.rng(LEARNING),
            evaluate=None,  # the last state is kept, as that of v2 is
            history=history,
        )
        _keep_history(job, file.stem.removeprefix(f"{job.name}-{job.seed}-"), history, started)
        _save(network.state_dict(), file)
    network.load_state_dict(load_file(file))
    return network.eval()


@lru_cache(maxsize=2)
def conditions_of_v1(job: Job, recipe: Recipe, part: str) -> Conditions:
    """Conditions of a part under the network of v1."""
    network = trained_v1(job, recipe)
    found = _encoded(job, recipe, network, _view(job, recipe, part, 0)).without_pictures()
    return found.map(torch.Tensor.contiguous)


def of_v1(recipe: Recipe, begin: str, end: str = "", *, passes: bool = False) -> dict[str, Method]:
    """v1 by the number of steps, under names that begin and end like this."""
    found = {f"{begin} {n} steps{end}": partial(v1, num_steps=n) for n in STEPS}
    found |= {f"{begin} last {n}{end}": partial(v1, num_steps=n, spacing="last") for n in LAST}
    return {name: _method(make, recipe, passes) for name, make in found.items()}


def of_v2(recipe: Recipe, begin: str, end: str = "", *, passes: bool = False) -> dict[str, Method]:
    """v2 by the number of steps, under names that begin and end like this."""
    found = {f"{begin} {n} steps{end}": partial(diffusion, num_steps=n) for n in STEPS}
    return {name: _method(make, recipe, passes) for name, make in found.items()}


def _method(make: Callable[[Recipe], Method], recipe: Recipe, passes: bool) -> Method:
    """A method of a recipe, or of what it is by :func:`one_pass` on each job."""
    found = make(recipe)
    if not passes:
        return found
    return replace(found, train=lambda job: make(one_pass(recipe, job)).train(job), on=one_pass)


# Minutes; as long as the papers, on cached conditions; and as published, which takes hours.
RUNS = {
    "short": {
        "diffmic-v1": v1(V1, STEPS[-1]),
        "diffmic-v1 prior": prior_of_v1(V1),
        **of_v1(V1, "diffmic-v1"),
        **of_v1(replace(frozen(V1), batch_size=OURS.batch_size), "diffmic-v1 frozen"),
        **of_v2(PAPER_CACHED, "paper-v2"),
        **of_v2(OURS, "diffmic-v2"),
    },
    "long": {
        **of_v1(frozen(V1_LONG), "diffmic-v1 frozen", LONG, passes=True),
        **of_v2(V2_LONG, "paper-v2", LONG, passes=True),
    },
    "hours": {
        f"diffmic-v1{LONG}": v1(V1_LONG, STEPS[-1]),
        f"diffmic-v1 prior{LONG}": prior_of_v1(V1_LONG),
        **of_v1(V1_LONG, "diffmic-v1", LONG),
    },
}
STEPPED = {name: method for methods in RUNS.values() for name, method in methods.items()}
