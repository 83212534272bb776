"""Warnings after a fit: missing calibration, or a diffusion stage without benefit."""

from ..errors import warn_user
from ..inference import FittedModel
from ..training import FitResult


def what_was_kept(result: FitResult) -> str:
    """Sentence on what the estimator holds after a fit that ended early."""
    epochs = [row["stage"] for row in result.history]
    return (
        "diffmic: what was learnt until then is kept, and the estimator is fitted: "
        f"{epochs.count('prior')} epochs of the prior, {epochs.count('diffusion')} of the "
        "diffusion." + ("" if result.verdict.scores else " Its probabilities are not calibrated.")
    )


def report(model: FittedModel, result: FitResult) -> None:
    """Warn if probabilities are uncalibrated, or the diffusion is no better than the prior."""
    if result.late:
        warn_user(result.late)
    if not result.verdict.scores:
        warn_user(
            "There was no validation part of two images or more, so probabilities are not "
            "calibrated (temperature 1) "
            "and it is unknown whether the diffusion stage improves on the prior. Pass "
            "validation_data, or set validation_fraction."
        )
        return
    calibration, gain = model.calibrations.get("diffusion"), result.verdict.gain
    if calibration is None or gain is None:
        return
    see = (
        "See validation_scores_, which is cross-fitted; predict_proba(X, stage='prior') gives the "
        "probabilities of the prior."
    )
    if calibration.gives_no_weight:
        warn_user(
            "On the validation part the scores of the diffusion stage add no information to its "
            "prior: calibration gives them no weight, so that both stages give the probabilities "
            f"of the prior. {see}"
        )
    elif gain.mean < -gain.standard_error:
        warn_user(
            f"On the validation part the diffusion stage is worse than its prior: its negative "
            f"log-likelihood is larger by {-gain.mean:.4f}, with a standard error of "
            f"{gain.standard_error:.4f}. {see}"
        )
