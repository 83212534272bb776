"""What the model card says of calibration and thresholds."""

from collections.abc import Mapping
from typing import Any

from ..inference import Calibration, ThresholdAim


def calibration_told(config: Mapping[str, Any]) -> str:
    """Sentences on the calibration of the model, and on its thresholds."""
    told = _mapping(config)
    if config["thresholds"] and config["task"] != "ordinal":
        aim = ThresholdAim(**config.get("aim") or {})
        told += f" Thresholds were chosen for {aim}."
    return told


def _mapping(config: Mapping[str, Any]) -> str:
    """Sentence on how probabilities are calibrated."""
    found = config["calibrations"]
    if (later := config.get("recalibration")) is not None:
        nll = "; ".join(
            f"{stage} {later['nll_before'][stage]:.3f} before, {value:.3f} after"
            for stage, value in later["nll_after"].items()
        )
        return (
            f"Probabilities and thresholds were calibrated anew after the training, on "
            f"{later['n_images']} other images, and hold for the population of these. Negative "
            f"log-likelihood on them, cross-fitted: {nll}. The figures on the validation part were "
            "measured before."
        )
    if own := next((c["own"] for c in found.values() if "own" in c), None):
        return f"Probabilities are calibrated on the validation part by `{in_a_line(own)}`."
    if "diffusion" not in found:
        return "The diffusion stage was not trained."
    if all(c["temperature"] == 1 and not c["prior_weight"] for c in found.values()):
        return "Probabilities are not calibrated."
    prior, diffusion = (Calibration(**found[stage]) for stage in ("prior", "diffusion"))
    if diffusion.gives_no_weight:
        own = "the diffusion's are those of the prior, since calibration gives its scores no weight"
    else:
        own = (
            f"the diffusion's by one of {diffusion.temperature:.2f} and "
            f"{diffusion.prior_weight:.2f} times the prior's logits added"
        )
    return (
        "Probabilities of both stages are calibrated on the validation part: the prior's by a "
        f"temperature of {prior.temperature:.2f}, {own}."
    )


def in_a_line(name: object) -> str:
    """Name on a single line, for a comment in the code of the card."""
    return " ".join(str(name).split()).replace("`", "'")
