"""Work of a fit by phases, from which the time that remains is estimated."""

from .diffusion_stage import cached_batch_size, cached_steps, n_cached_views
from .options import TrainingOptions
from .progress import Phase

# Phases that have not been measured yet are compared by this, in passes of an image through the
# encoders. docs/speed.md: on a CPU 6 for an image in stage one, 0.02 for a cached image in stage
# two, and 0.5 for sampling 8 draws in 10 steps. GPUs learn in about 3.
LEARNING = 4.0
CACHED = 0.02
DENOISING = 0.006  # one step of one draw

ENCODING, CALIBRATION = "encoding", "calibration"


def phases(options: TrainingOptions, n_training: int, n_validation: int) -> list[Phase]:
    """Phases of a fit on so many images in which no stage stops early."""
    recipe, sampling = options.recipe, options.sampling
    epochs = recipe.denoiser_epochs or options.max_epochs
    sampled = n_validation * (DENOISING * sampling.num_steps * sampling.n_draws)
    found = [Phase("prior", options.max_epochs, LEARNING * n_training, n_validation)]
    if recipe.cached:
        n_views = n_cached_views(options)
        found.append(Phase(ENCODING, n_views, n_training))
        n_steps = cached_steps(n_training, n_training * n_views, recipe)
        n_rows = n_steps * cached_batch_size(n_training, recipe)
        found.append(Phase("diffusion", epochs, CACHED * n_rows, sampled))
    else:
        found.append(Phase("diffusion", epochs, LEARNING * n_training, n_validation + sampled))
    if n_validation > 1:
        found.append(Phase(CALIBRATION, 1, sampling.n_views * n_validation + sampled))
    return found
