"""What is noticed while images are read, and how it is said: one warning per cause."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntFlag

from torch import Tensor

from ..errors import InputError, warn_user
from .ranges import ValueRange

DARK = 1 / 8  # 12-bit pixels in 16-bit files reach 1/16 of the range, 13-bit pixels 1/8


class Note(IntFlag):
    """What was noticed in an image: what of it was left out or changed."""

    FRAMES = 1
    ALPHA = 2
    BITS = 4
    CLIPPED = 8
    OUTSIDE = 16
    DARK = 32


_MEANINGS = {
    Note.FRAMES: (
        "hold several frames or pages, of which only the first is used. Pass the frame that "
        "matters as an image of its own, for example with PIL.ImageSequence"
    ),
    Note.ALPHA: (
        "have transparent pixels, which are shown on black: alpha itself is not used. Convert the "
        "images to RGB yourself if that is not meant, for example with Image.convert('RGB')"
    ),
    Note.BITS: (
        "have more than 8 bits per colour, of which Pillow reads the upper 8. Read them with "
        "another reader, such as tifffile.imread or imagecodecs.imread, and pass arrays of uint16"
    ),
    Note.CLIPPED: (
        "have float pixels a little outside 0–1, as after cubic interpolation or added noise; they "
        "are clipped to 0–1"
    ),
    Note.OUTSIDE: (
        "have pixels far outside the value range {range}, which are clipped. Pass images with the "
        "values that the model was fitted on, or fit with another value_range"
    ),
}


_DARK = (
    "{0} of {0} images stay below an eighth of the range of pixel values: they are nearly black. "
    "Pixels of 12 bits that are divided by 65535 are so, and floats that were divided twice: pass "
    "images on the scale of those that the model was fitted on."
)


@dataclass
class Reading:
    """How an image is to be read, and what was noticed in it."""

    value_range: ValueRange | None = None  # None: 8 bits, 16 bits, or floats in 0–1
    raw: bool = False  # whether integers of more than 8 bits keep their values without a range
    seed: int = 0  # of what code of the user draws at random while it gives the image
    # Side of the square to which the image will be resized: a larger file may be reduced while it
    # is decoded, as far as that makes no difference. None: it is read whole.
    side: int | None = None
    full_size: tuple[int, int] | None = None  # (H, W) of an image that was reduced
    notes: Counter[Note] = field(default_factory=Counter)  # number of images, one or an array's
    # Black and white by the file's own word, of integers of more than 8 bits; None: it says
    # nothing. See ``diffmic.depth.applied_range``.
    own: tuple[float, float] | None = None
    extremes: tuple[Tensor, Tensor] | None = None  # of each image of integers of more than 8 bits

    def size_of(self, image: Tensor) -> tuple[int, int]:
        """Height and width (H, W) of an image (C, H, W) before it was reduced."""
        height, width = image.shape[-2:]
        return self.full_size or (height, width)

    def note(self, what: Note, n_images: int = 1) -> None:
        """Remember something about an image, or about some images of an array."""
        self.notes[what] += n_images

    @property
    def flags(self) -> int:
        """What was noticed in one image, as a number that travels in batches."""
        return int(sum(self.notes))


def one_of_many(reason: InputError) -> InputError:
    """Error of a fit about one image where others can be used, with what helps then."""
    return InputError(
        f"{reason} diffmic.datasets.inspect(X) lists all such images; "
        "DiffMICClassifier(on_error='skip') leaves them out."
    )


@dataclass
class Notes:
    """Number of images in which each thing was noticed."""

    n_images: int = 0
    counts: Counter[Note] = field(default_factory=Counter)

    def add(self, reading: Reading, n_images: int = 1) -> None:
        """Count what was noticed in an image, or in the images of an array."""
        self.n_images += n_images
        self.counts.update(reading.notes)

    def add_flags(self, flags: Iterable[int]) -> None:
        """Count the notes of each image of a batch."""
        for number in flags:
            self.n_images += 1
            if number:
                self.counts.update(note for note in Note if note & number)

    def warn(self, value_range: ValueRange | None = None) -> None:
        """Say what was noticed, in one warning for each cause."""
        for message in self.messages(value_range):
            warn_user(message)

    def messages(self, value_range: ValueRange | None = None) -> Iterator[str]:
        """What was noticed, in one sentence or two for each cause."""
        shown = "" if value_range is None else f"({value_range.low:g}, {value_range.high:g})"
        images = "image" if self.n_images == 1 else "images"
        for note, meaning in _MEANINGS.items():
            if count := self.counts[note]:
                yield f"{count} of {self.n_images} {images} {meaning.format(range=shown)}."
        if self.n_images and self.counts[Note.DARK] == self.n_images:
            yield _DARK.format(self.n_images)
