"""Plan of the network of a fit: its image sizes, and the weights that it starts from."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..data import TrainingData
from ..data.framing import frames
from ..errors import warn_user
from ..inference import FittedModel
from ..model import (
    DiffMICNetwork,
    NetworkPlan,
    carry_over,
    default_image_size,
    resolve_architecture,
    zoom_size,
)


def image_size_of(p: Mapping[str, Any], data: TrainingData, learnt: FittedModel | None) -> int:
    """Image size of a network: that of the estimator, of the earlier model, or of the backbone."""
    if p["image_size"] != "auto":
        return int(p["image_size"])
    if learnt is not None:
        return learnt.image_size
    backbones = [p["backbone"], resolve_architecture(p["architecture"]).prior_backbone]
    longest_side = longest_side_of(p, data)
    return max(default_image_size(b, longest_side) for b in backbones if b is not None)


def longest_side_of(p: Mapping[str, Any], data: TrainingData) -> int:
    """Longer side of what is seen of the first image, in pixels."""
    crop = resolve_architecture(p["architecture"]).crop
    x0, y0, x1, y1 = frames(torch.tensor([data.image_shape[1:]]), crop)[0].tolist()
    return int(max(x1 - x0, y1 - y0))


def with_zoom(plan: NetworkPlan, longest_side: int, learnt: FittedModel | None) -> NetworkPlan:
    """The plan with the size of its zoom resolved."""
    if not plan.architecture.zooms:
        return plan
    if learnt is not None and learnt.plan.architecture.zooms:
        longest_side = learnt.input_size
    architecture = replace(plan.architecture, zoom_size=zoom_size(plan, longest_side))
    return replace(plan, architecture=architecture)


def with_regions_of(plan: NetworkPlan, learnt: FittedModel) -> NetworkPlan:
    """The plan with as many regions as an earlier model, whose heads go on: "auto" is no other."""
    architecture = plan.architecture
    if architecture.n_regions != "auto" or architecture.zooms != learnt.plan.architecture.zooms:
        return plan
    return replace(plan, architecture=replace(architecture, n_regions=learnt.network.n_regions))


def go_on(
    learnt: FittedModel, network: DiffMICNetwork, data: TrainingData, *, same: bool, heads: bool
) -> None:
    """Start a network from the weights of an earlier model."""
    carry_over(learnt.network, network, heads=heads)
    encoding = data.encoding
    if same and not heads:
        warn_user(
            f"warm_start: regions were {learnt.plan.architecture.regions!r} and are now read in "
            "another way: keeping the backbone weights and re-initialising the heads."
        )
    if not same and np.isin(encoding.classes, learnt.classes).any():
        before, now = learnt.classes.tolist(), encoding.classes.tolist()
        if before == now and data.data_names is not None:
            before, now = list(learnt.data_names or learnt.class_names or ()), [*data.data_names]
        warn_user(
            f"warm_start: the classes changed from {before[:20]} to {now[:20]}: keeping the "
            "backbone weights and re-initialising the heads."
        )
