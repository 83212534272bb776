"""Survey: every image is read and checked once, before any work."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from ..errors import InputError, warn_user
from .ranges import ValueRange, found_range
from .reading import Notes, Reading
from .sources import ArrayImages, ImageSource, read_from


@dataclass
class Survey:
    """Summary of all images of a source, collected while each is read and checked once.

    Attributes
    ----------
    value_range : ValueRange or None
        Range of pixel values that the user gave; None: that of integers of more than 8 bits is
        found.
    skip : bool
        Whether images that cannot be used are left out instead of raising an error.
    image_shape : tuple of int
        (C, H, W) of the first image.
    largest : float or None
        Largest pixel value of all float images; None: there are none.
    extremes : tuple of float or None
        Smallest and largest value of integers of more than 8 bits; None: there are none.
    notes : Notes
        What was noticed in the images.
    kept : list of int
        Indices of the images that can be used.
    failed : dict of int to str
        Why each of the others cannot.
    """

    value_range: ValueRange | None = None
    skip: bool = False
    image_shape: tuple[int, int, int] = (0, 0, 0)
    largest: float | None = None
    extremes: tuple[float, float] | None = None
    notes: Notes = field(default_factory=Notes)
    kept: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, index: int, read: Callable[[Reading], Tensor]) -> bool:
        """Read one image, and whether it can be used.

        Raises
        ------
        InputError
            It cannot, and ``skip`` is false.
        """
        reading = Reading(self.value_range, raw=True)
        try:
            image = read(reading)
        except InputError as reason:
            if not self.skip:
                raise
            self.failed[index] = str(reason)
            return False
        self.kept.append(index)
        self.notes.add(reading)
        self._see(image, reading)
        return True

    def _see(self, images: Tensor, reading: Reading) -> None:
        if not self.image_shape[0]:
            channels, height, width = images.shape[-3:]
            self.image_shape = channels, height, width
        if reading.extremes is not None:
            low, high = reading.extremes
            before = self.extremes or reading.extremes
            self.extremes = min(low, before[0]), max(high, before[1])
        elif images.is_floating_point():
            self.largest = max(self.largest or 0.0, float(images.max()))

    @classmethod
    def of(
        cls,
        images: ImageSource,
        indices: Iterable[int],
        *,
        value_range: ValueRange | None = None,
        skip: bool = False,
    ) -> "Survey":
        """Survey of a source; arrays are looked at many images at once.

        Raises
        ------
        InputError
            An image cannot be used, and ``skip`` is false.
        """
        survey = cls(value_range, skip)
        if isinstance(images, ArrayImages) and not skip:
            for part, reading in images.parts(lambda: Reading(value_range, raw=True)):
                survey.notes.add(reading, len(part))
                survey._see(part, reading)
            survey.kept = list(range(len(images)))
            return survey
        for index in indices:
            survey.add(index, partial(read_from, images, index))
        return survey

    @property
    def range(self) -> ValueRange | None:
        """Range of pixel values: that which was given, else that of more than 8 bits, if any."""
        if self.value_range is not None or self.extremes is None:
            return self.value_range
        return found_range(*self.extremes)

    def report(self, name: str = "") -> None:
        """Say what was left out or changed, in one warning for each cause.

        Parameters
        ----------
        name : str
            Name of the images, such as ``"validation "``.

        Raises
        ------
        InputError
            No image can be used.
        """
        n_images = len(self.kept) + len(self.failed)
        if self.failed:
            first = next(iter(self.failed.values()))
            if not self.kept:
                raise InputError(f"None of the {n_images} {name}images can be used. {first}")
            warn_user(
                f"{len(self.failed)} of {n_images} {name}images cannot be used and are left out, "
                f"as on_error='skip' says. The first: {first}"
            )
        self.notes.warn(self.range)
        unused = self.extremes is None and self.largest is None
        if self.value_range is not None and unused:
            warn_user(
                f"All {name}images have 8 bits, which are always 0–255: value_range does not apply "
                "to them."
            )
