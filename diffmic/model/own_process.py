"""A diffusion process or a sampler of one's own, whose output is checked."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..diffusion import Denoise, Denoised, NoiseSchedule, Process
from .architecture import NetworkPlan
from .part_checks import check_repeats, checked, made, naming, part_error


@runtime_checkable
class Sampler(Protocol):
    """Sampling algorithm: a function, such as :func:`diffmic.diffusion.ddim`.

    It draws nothing at random, so that an image gets the same answer whatever its neighbours. The
    timesteps are those of the recipe's ``timestep_spacing``.
    """

    def __call__(
        self, denoise: Denoise, y: Tensor, schedule: NoiseSchedule, timesteps: list[int]
    ) -> Tensor:
        """The final label map, of the shape of ``y``.

        Parameters
        ----------
        denoise : callable
            Function ``(y, t)`` → :class:`~diffmic.diffusion.Denoised`, the estimates of the clean
            label and of the noise; t is one timestep for the whole map.
        y : Tensor of shape (B, S, K, C)
            Initial label maps of S draws, at the noise level of ``timesteps[0]``.
        schedule : NoiseSchedule
            Signal and noise level of each timestep.
        timesteps : list of int
            Timesteps, in decreasing order.
        """
        ...


class OwnSampler:
    """Sampler of one's own; the mean of its estimates is kept beside the final map."""

    def __init__(self, part: Any) -> None:
        self.own = part

    def __call__(
        self,
        denoise: Denoise,
        y: Tensor,
        schedule: NoiseSchedule,
        timesteps: list[int],
        *,
        callback: Callable[[int, Tensor, Denoised], None],
    ) -> Tensor:
        """As :func:`diffmic.diffusion.ddim`."""
        calls = 0

        def watched(noisy: Tensor, t: int) -> Denoised:
            nonlocal calls
            calls += 1
            noisy = checked("sampler", self.own, "a noisy map", noisy, tuple(y.shape), y)
            found = denoise(noisy, int(t))
            callback(int(t), noisy, Denoised(found.label.clamp(-1, 1), found.noise))
            return found

        with naming("sampler", self.own, f"fails on label maps of shape {tuple(y.shape)}"):
            last = self.own(watched, y, schedule, timesteps)
        if not calls:
            told = "never called denoise(y, t); expected is a call for each step."
            raise part_error("sampler", self.own, told)
        last = checked("sampler", self.own, "a final label map", last, tuple(y.shape), y)
        return last.to(y.dtype)


class OwnProcess(nn.Module):
    """Process of one's own, with the interface of a :class:`~diffmic.diffusion.Process`."""

    def __init__(self, part: Any, plan: NetworkPlan) -> None:
        super().__init__()
        self.own: Any = made("process", part, plan)
        wanted = plan.architecture.num_train_timesteps
        schedule: Any = getattr(self.own, "schedule", None)
        found = getattr(schedule, "num_train_timesteps", None)
        if not isinstance(schedule, NoiseSchedule) or found != wanted:
            raise part_error(
                "process",
                self.own,
                f"has a schedule of {found} timesteps ({type(schedule).__name__}); expected is a "
                f"diffmic.diffusion.NoiseSchedule of {wanted}, the architecture's "
                "num_train_timesteps.",
            )
        self.schedule: NoiseSchedule = schedule

    def forward(self, label: Tensor, noise: Tensor, timesteps: Tensor, guidance: Tensor) -> Tensor:
        """Noisy labels, checked."""
        with naming("process", self.own, f"fails in forward on labels of {tuple(label.shape)}"):
            found = self.own.forward(label, noise, timesteps, guidance)
        return checked("process", self.own, "noisy labels", found, tuple(noise.shape), noise)

    def noise(
        self, n_draws: int, n_positions: int, num_classes: int, generator: torch.Generator
    ) -> Tensor:
        """Noise of a prediction, checked."""
        with naming("process", self.own, f"fails in noise for {n_draws} draws"):
            found = self.own.noise(n_draws, n_positions, num_classes, generator)
        shape: tuple[int | str, ...] = (n_draws, *["..."] * (getattr(found, "ndim", 2) - 1))
        return checked("process", self.own, "noise", found, shape, torch.empty(0))

    def timesteps(self, num_steps: int) -> list[int]:
        """Timesteps of the sampler, checked."""
        with naming("process", self.own, f"fails in timesteps for {num_steps} steps"):
            found = self.own.timesteps(num_steps)
        largest = self.schedule.num_train_timesteps - 1
        whole = isinstance(found, list) and found and all(type(t) is int for t in found)
        falls = whole and found == sorted(set(found), reverse=True)
        if not falls or found[-1] < 0 or found[0] > largest:
            expected = f"a list of decreasing integers in 0–{largest}."
            told = f"gave the timesteps {str(found)[:80]}; expected is {expected}"
            raise part_error("process", self.own, told)
        return list(found)

    def backward(
        self, denoise: Denoise, noise: Tensor, guidance: Tensor, timesteps: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Final label map, and the mean of the estimates, checked."""
        shape = tuple(guidance.shape)
        with naming("process", self.own, f"fails in backward on label maps of {shape}"):
            found = self.own.backward(denoise, noise, guidance, timesteps)
        if not isinstance(found, tuple) or len(found) != 2:
            expected = "two label maps: the last, and the mean of the estimates."
            told = f"gave a {type(found).__name__} from backward; expected are {expected}"
            raise part_error("process", self.own, told)
        last = checked("process", self.own, "a final label map", found[0], shape, guidance)
        return last, checked("process", self.own, "a mean label map", found[1], shape, guidance)


@torch.no_grad()
def try_process(process: Process, role: str, part: Any, n_regions: int, num_classes: int) -> None:
    """Try random labels, so that what does not fit is told before anything is trained."""
    label = torch.eye(num_classes)[:2]
    guidance = torch.full((2, n_regions, num_classes), 1 / num_classes)
    timesteps = torch.zeros(2, n_regions, dtype=torch.long)
    process.forward(label, torch.ones_like(guidance), timesteps, guidance)
    steps = process.timesteps(min(3, process.schedule.num_train_timesteps))
    guidance = guidance[:, None].expand(-1, 3, -1, -1)

    def sampled() -> tuple[Tensor, Tensor]:
        noise = process.noise(3, n_regions, num_classes, torch.Generator().manual_seed(0))
        maps = process.backward(
            lambda y, t: Denoised(guidance, y - guidance), noise, guidance, steps
        )
        return noise, torch.stack(maps)

    for what, once, again in zip(("noise", "label maps"), sampled(), sampled(), strict=True):
        check_repeats(role, part, what, once, again)
