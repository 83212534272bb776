"""DiffMIC (v1) and v2 on the same backbone, by the number of steps of the sampler.

Both start from the job's prior. v2 learns on cached conditions of the frozen prior, v1 on images,
with its prior, for as many epochs; in a long run both learn for the papers' number of epochs of the
denoiser, with the papers' settings.
"""

import functools
import time
from dataclasses import replace

import torch
from safetensors.torch import load_file

from diffmic.inference import Engine, Evidence, SamplingOptions, evidence_of
from diffmic.model import Conditions, VectorNetwork
from diffmic.training import Recipe
from diffmic.training.joint_stage import train_jointly
from diffmic.training.loop import History
from diffmic.training.precision import to_device, training_precision
from diffmic.training.recipe import PAPER_V1

from .encoders import (
    DEFAULTS,
    DEVICE,
    LEARNING,
    Job,
    _encoded,
    _keep_history,
    _save,
    _view,
    trained_prior,
)
from .methods import BATCH, OURS, PAPER_CACHED, EvidenceOf, Method, diffusion

STEPS = (1, 2, 5, 10, 60, 250, 1000)
LAST = (10, 60, 250)  # of the whole schedule, not spread over it; all 1000 are the same
EPOCHS = 1000  # of the papers' denoisers
LONG = f", {EPOCHS} epochs"  # in the names of methods of a long run

# At the budget of the other methods the moving average has their horizon: that of the paper, ten
# thousand steps, is longer than the run.
SHORT_V1 = replace(PAPER_V1, denoiser_epochs=None, ema_decay=None, ema=OURS.ema, patience=None)
LONG_V1 = replace(PAPER_V1, denoiser_epochs=EPOCHS, patience=None)
LONG_V2 = replace(PAPER_CACHED, denoiser_epochs=EPOCHS)


def v1(recipe: Recipe, num_steps: int, spacing: str = "trailing") -> Method:
    """DiffMIC (v1) with a number of steps of the sampler, on a grid."""

    def train(job: Job) -> EvidenceOf:
        network = trained_v1(job, recipe)

        def evidence(part: str) -> Evidence:
            network.process.timestep_spacing = spacing
            conditions = conditions_of_v1(job, recipe, part)
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


@functools.lru_cache(maxsize=1)
def trained_v1(job: Job, recipe: Recipe) -> VectorNetwork:
    """The network of v1, trained where that has not been done; it ends in its averaged state."""
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


@functools.lru_cache(maxsize=2)
def conditions_of_v1(job: Job, recipe: Recipe, part: str) -> Conditions:
    """Conditions of a part under the network of v1."""
    network = trained_v1(job, recipe)
    found = _encoded(job, recipe, network, _view(job, recipe, part, 0)).without_pictures()
    return found.map(torch.Tensor.contiguous)


def stepped(name: str) -> dict[str, Method]:
    """Methods of a short or a long run, whose names end in ``name``: v1, then v2."""
    long = name == LONG
    first, paper = (LONG_V1, LONG_V2) if long else (SHORT_V1, PAPER_CACHED)
    found = {
        f"diffmic-v1{name}": v1(first, STEPS[-1]),
        f"diffmic-v1 prior{name}": prior_of_v1(first),
    }
    found |= {f"diffmic-v1 {n} steps{name}": v1(first, n) for n in STEPS}
    found |= {f"diffmic-v1 last {n}{name}": v1(first, n, "last") for n in LAST}
    found |= {f"paper-v2 {n} steps{name}": diffusion(paper, num_steps=n) for n in STEPS}
    if not long:
        found |= {f"diffmic-v2 {n} steps": diffusion(OURS, num_steps=n) for n in STEPS}
    return found


SHORT_RUN, LONG_RUN = stepped(""), stepped(LONG)
STEPPED = SHORT_RUN | LONG_RUN
