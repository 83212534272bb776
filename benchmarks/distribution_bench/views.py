"""Views of an image as more regions of it, against the mean over its views."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from accuracy_bench.encoders import N_VIEWS, Job, conditions_of, trained_prior, views_of
from accuracy_bench.methods import METHODS, OURS
from torch import Tensor

from diffmic.inference import over_views
from diffmic.model import Conditions, DiffMICNetwork

from .jobs import Experiment, Readings, Row, derived


@torch.no_grad()
def side_by_side(views: Conditions, network: DiffMICNetwork) -> Conditions:
    """Conditions of n images whose regions are those of all their views, (n, V · K, …).

    The features of the whole image are the mean over the views (n, V, …); the prior's logits are
    read anew from these and from all regions.
    """

    def joined(tensor: Tensor) -> Tensor:
        return tensor.flatten(1, 2)

    features, weights = joined(views.region_features), joined(views.region_weights)
    image = views.image_features.mean(dim=1)
    global_logits, local_logits = network.prior.reread(image, features, weights)
    return Conditions(
        global_logits,
        local_logits,
        image,
        features,
        views.saliency[:, 0],
        joined(views.boxes),
        joined(views.attention) / views.attention.shape[1],
        weights,
    )


def rows(job: Job) -> Iterator[Row]:
    """One view, the mean over views, and views as regions: of prior, head and diffusion."""
    network, train, task = trained_prior(job, OURS), job.parts.train, job.parts.task
    of_val = views_of(job, OURS, "val")
    of_val = of_val.map(lambda t: t.unflatten(0, (-1, N_VIEWS)))
    of_train = conditions_of(job, OURS, "train").map(
        lambda t: t.unflatten(0, (N_VIEWS, len(train))).transpose(0, 1)
    )
    # The image itself, then its other views, in another order in each of the rows of the cache.
    turned = [[0, *torch.arange(1, N_VIEWS).roll(i).tolist()] for i in range(N_VIEWS)]
    orders = [of_train.map(lambda t, order=order: t[:, order]) for order in turned]
    conditions = {
        "train": Conditions.cat([side_by_side(views, network) for views in orders]),
        "val": side_by_side(of_val, network),
    }
    count = conditions["val"].region_features.shape[1]
    wide = replace(job.architecture, n_regions=count, region_size=job.data_set.image_size // 10)
    joined = derived(job, "views-as-regions", job.parts, conditions, architecture=wide)
    flat = derived(job, "views", job.parts, {"val": views_of(job, OURS, "val")})
    found = Readings(job)
    one, mean = (METHODS[name].train(job)("val").prior_logits for name in ("prior", "prior_tta"))
    found.add("prior, one view", one, None)
    found.add("prior, mean over views", mean, None)
    found.add("prior, views as regions", conditions["val"].fused_logits.cpu(), None)
    head, diffusion = METHODS["head_linear"], METHODS["diffusion"]
    found.add("head_linear, one view", head.train(job)("val").prior_logits, one)
    over = over_views(head.train(flat)("val").prior_logits, N_VIEWS)
    found.add("head_linear, mean over views", over, mean)
    found.add("head_linear, views as regions", head.train(joined)("val").prior_logits, mean)
    for title, method, of, prior in (
        ("one view", diffusion, job, one),
        ("mean over views", METHODS["diffusion_tta"], job, mean),
        ("views as regions", diffusion, joined, mean),
    ):
        logits = method.train(of)("val").logits("diffusion", task)
        found.add(f"diffusion, {title}", logits, prior)
    kinds = ("prior", "head_linear", "diffusion")
    pairs = [(f"{k}, views as regions", f"{k}, mean over views") for k in kinds]
    pairs += [(f"{k}, mean over views", f"{k}, one view") for k in kinds]
    pairs += [("diffusion, views as regions", "head_linear, views as regions")]
    yield from found.compared(pairs)


EXPERIMENT = Experiment("busi", rows, {"views": N_VIEWS})
