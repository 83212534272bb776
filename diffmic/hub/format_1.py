"""Conversion of configurations of format version 1, with its other names and structure."""

from typing import Any

from ..errors import ModelFileError

_ARCHITECTURE = (
    "prior_backbone",
    "region_backbone",
    "n_regions",
    "region_size",
    "feature_dim",
    "num_train_timesteps",
)
_PARAMETERS = (
    *("pretrained", "image_size", "max_epochs", "batch_size", "learning_rate"),
    *("validation_fraction", "class_weight", "augment", "class_names", "warm_start"),
    *("precision", "num_workers", "random_state", "verbose"),
)
_DIFFUSION = {"parameterization": "prediction_type", "grid": "timestep_spacing"}
_USUAL_TIMESTEPS = 1000


def upgraded(config: dict[str, Any]) -> dict[str, Any]:
    """Convert a configuration of format version 1 to version 2.

    Validation metrics of version 1 were not cross-fitted and are dropped.
    """
    config = dict(config)
    old = config.pop("parameters")
    architecture = {name: old[name] for name in _ARCHITECTURE}
    if architecture["num_train_timesteps"] != _USUAL_TIMESTEPS:
        raise ModelFileError(
            f"The model was trained with {architecture['num_train_timesteps']} timesteps and a "
            "noise schedule that is no longer supported. Train it again."
        )
    multilabel, trained = config.pop("multilabel"), config.pop("diffusion_trained")
    patience = old["n_iter_no_change"] if old["early_stopping"] else None
    recipe = _recipe(old["recipe"], patience)
    stages = ("diffusion", "prior") if trained else ("prior",)
    sampling = {
        "num_steps": old["num_steps"],
        "n_draws": old["n_samples"],
        "n_views": old.get("n_views", 1),
    }
    return config | {
        "task": "multilabel" if multilabel else "multiclass",
        "network": {
            "backbone": old["backbone"],
            "architecture": architecture,
            "diffusion": _renamed(config.pop("diffusion"), _DIFFUSION),
        },
        "calibrations": {
            stage: {name: calibration[name] for name in ("temperature", "shift", "prior_weight")}
            for stage, calibration in config["calibrations"].items()
            if stage in stages
        },
        "thresholds": {s: values for s, values in config["thresholds"].items() if s in stages},
        "sampling": sampling,
        "drawing_ratio": None,  # the calibrations were fitted on uncorrected scores
        "validation_scores": {},
        "parameters": {name: old[name] for name in _PARAMETERS}
        | sampling
        | {"recipe": recipe, "architecture": architecture},
    }


def _recipe(recipe: Any, patience: int | None) -> Any:
    if not isinstance(recipe, dict):
        return recipe
    return _renamed(recipe, {"n_views": "n_cached_views"}) | {
        "diffusion": _renamed(recipe["diffusion"], _DIFFUSION),
        "patience": patience,
        "denoiser_epochs": None,
    }


def _renamed(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}
