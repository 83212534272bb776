"""Survey: every image is read and checked once, before any work."""

from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

from torch import Tensor

from ..depth import Range, applied_range
from ..errors import InputError, warn_user
from ..logs import bar
from .ranges import SIXTEEN_BITS, ValueRange, found_range, nearly_black
from .reading import DARK, Notes, Reading, one_of_many
from .sources import ArrayImages, ImageSource, Sighting, Surveyed, name_of


@dataclass
class Survey:
    """Summary of all images of a source, collected while each is read and checked once."""

    value_range: ValueRange | None = None  # that the user gave; None: see ``range``
    skip: bool = False  # whether images that cannot be used are left out, instead of an error
    images: Any = ()  # the source
    image_shape: tuple[int, int, int] = (0, 0, 0)  # of the first image
    largest: float | None = None  # pixel of all float images, if there are any
    largest_byte: int | None = None  # pixel of all images of 8 bits, if there are any
    lows: list[float] = field(default_factory=list)  # smallest value of each image of more bits
    highs: list[float] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # indices of these images
    own: list[Range | None] = field(default_factory=list)  # their ranges, by their files' word
    notes: Notes = field(default_factory=Notes)
    kept: list[int] = field(default_factory=list)  # indices of the images that can be used
    targets: list[Any] = field(default_factory=list)  # of these, if they were asked for
    failed: dict[int, str] = field(default_factory=dict)  # why each of the others cannot be used

    def _add(self, index: int, found: Sighting) -> None:
        if not isinstance(found.image, InputError):
            self.kept.append(index)
            self.targets.append(found.target)
            self.notes.add(found.reading, index)
            self._see(found.image, found.reading, index)
        elif self.skip:
            self.failed[index] = str(found.image)
        elif self.kept:
            raise one_of_many(found.image) from found.image
        else:
            raise found.image

    def _see(self, images: Tensor, reading: Reading, index: int) -> None:
        """Summarise the image (C, H, W) at an index, or those of an array (n, C, H, W) from it."""
        if not self.image_shape[0]:
            self.image_shape = images.shape[-3], *reading.size_of(images)
        if reading.extremes is not None:
            self.lows.extend(reading.extremes[0].tolist())
            self.highs.extend(reading.extremes[1].tolist())
            self.own.extend([reading.own] * len(reading.extremes[1]))
            self.places.extend(range(index, index + len(reading.extremes[1])))
        elif images.is_floating_point():
            self.largest = max(self.largest or 0.0, float(images.max()))
        else:
            self.largest_byte = max(self.largest_byte or 0, int(images.max()))

    @classmethod
    def of(
        cls,
        images: ImageSource,
        *,
        value_range: ValueRange | None = None,
        skip: bool = False,
        with_targets: bool = False,
        progress: str | None = None,
    ) -> "Survey":
        """Survey of a source; arrays are looked at many images at once.

        ``with_targets``: whether to keep the targets of the items of a Dataset. ``progress``: label
        of a progress bar. An InputError names an image that cannot be used, unless ``skip``.
        """
        survey = cls(value_range, skip, images, notes=Notes(partial(name_of, images)))
        if isinstance(images, ArrayImages) and not skip:
            for part, reading in images.parts(lambda: Reading(value_range, raw=True)):
                index = survey.notes.n_images
                survey.notes.add(reading, index, len(part))
                survey._see(part, reading, index)
            survey.kept = list(range(len(images)))
            return survey
        each = Surveyed(images, value_range, with_targets)
        read = bar(each, desc=progress, disable=progress is None, leave=False)
        for index, found in enumerate(read):
            survey._add(index, found)
        return survey

    @property
    def range(self) -> ValueRange | None:
        """Range of pixel values: that which was given, else that of more than 8 bits, if any."""
        if self.value_range is not None or not self.highs:
            return self.value_range
        return found_range(min(self.lows), max(self.highs))

    def report(self, name: str = "") -> None:
        """Say what was left out or changed, in one warning for each cause; an error: all was.

        ``name`` is that of the images, such as ``"validation "``.
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
        unused = not self.highs and self.largest is None
        if self.value_range is not None and unused:
            warn_user(
                f"All {name}images have 8 bits, which are always 0–255: value_range does not apply "
                "to them."
            )
        self._report_dark()

    def _report_dark(self) -> None:
        """Warn if images use a small part of the range, as 12-bit pixels in 16-bit files do."""
        found, largest, byte = self.range, self.largest, self.largest_byte
        # Images that are read by their own range are as bright as their files have them.
        each = zip(self.highs, self.own, self.places, strict=True)
        alone = {place: high for high, own, place in each if not _has_own(own, found)}
        typical = median(alone.values()) if alone else 0
        brightest = max(alone, key=lambda place: alone[place], default=0)
        if (
            self.value_range is None
            and found is not None
            and alone
            and typical < alone[brightest]
            and typical - found.low < DARK * (found.high - found.low)
        ):
            warn_user(
                f"The range of pixel values that was found is ({found.low:g}, {found.high:g}), but "
                f"most images reach no more than {typical:g}, so they are nearly black: "
                f"{name_of(self.images, brightest)} reaches {alone[brightest]:g}. Fit "
                f"with DiffMICClassifier(value_range=({found.low:g}, high)), high the value of "
                "white."
            )
        dark = largest if largest is not None and 0 < largest < DARK else None
        if dark is not None and self.value_range is not None:
            warn_user(nearly_black(dark, self.value_range))
        elif dark is not None:
            value = max(1, round(dark * SIXTEEN_BITS))
            warn_user(
                f"The largest pixel of all float images is {dark:.3g} in 0–1 (in 16-bit files: "
                f"{value} of 65535), so they are nearly black. Divide them by their true maximum "
                f"(for 16-bit pixels perhaps {2 ** value.bit_length() - 1}) to get floats in 0–1, "
                "here and when predicting; floats may have been divided twice."
            )
        if largest is None and not self.highs and byte and byte < 255 * DARK:
            warn_user(
                f"The largest pixel of all images is {byte} of 255, so they are nearly black. "
                f"Scale them, here and when predicting: X * {255 // byte}. Masks and labels of "
                "pixels are no images."
            )


def _has_own(own: Range | None, found: ValueRange | None) -> bool:
    """Whether an image is read by its own range where another was found."""
    pair = None if found is None else (found.low, found.high)
    return applied_range(pair, own) != pair
