"""What is noticed while images are read, and how it is said: one warning per cause."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntFlag

from torch import Tensor

from ..conventions import some
from ..errors import InputError, warn_user
from .ranges import ValueRange

_NAMED = 3  # images that a message names
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
    # Places of the images in which each thing was noticed: 0, or some of an array's.
    notes: dict[Note, list[int]] = field(default_factory=dict)
    # Black and white by the file's own word, of integers of more than 8 bits; None: it says
    # nothing. See ``diffmic.depth.applied_range``.
    own: tuple[float, float] | None = None
    extremes: tuple[Tensor, Tensor] | None = None  # of each image of integers of more than 8 bits

    def size_of(self, image: Tensor) -> tuple[int, int]:
        """Height and width (H, W) of an image (C, H, W) before it was reduced."""
        height, width = image.shape[-2:]
        return self.full_size or (height, width)

    def note(self, what: Note, place: int = 0) -> None:
        """Remember something about an image, or about the image of an array at a place."""
        self.notes.setdefault(what, []).append(place)

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
    """Number of images in which each thing was noticed, and which are the first of them.

    ``name`` is the name of an image by its index; None: images have none.
    """

    name: Callable[[int], str] | None = None
    n_images: int = 0
    counts: Counter[Note] = field(default_factory=Counter)
    first: dict[Note, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, reading: Reading, index: int, n_images: int = 1) -> None:
        """Count what was noticed in the image at an index, or in those of an array from there."""
        self.n_images += n_images
        for note, places in reading.notes.items():
            self._count(note, [index + place for place in places])

    def add_flags(self, flags: Iterable[int], indices: Iterable[int]) -> None:
        """Count the notes of each image of a batch."""
        for number, index in zip(flags, indices, strict=True):
            self.n_images += 1
            for note in Note if number else ():
                if note & number:
                    self._count(note, [index])

    def _count(self, note: Note, indices: list[int]) -> None:
        self.counts[note] += len(indices)
        self.first[note] += indices[: _NAMED + 1 - len(self.first[note])]

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
                told = f"{count} of {self.n_images} {images} {meaning.format(range=shown)}."
                if self.name is not None:
                    told += f" The first: {some([*map(self.name, self.first[note])], _NAMED)}."
                yield told
        if self.n_images and self.counts[Note.DARK] == self.n_images:
            yield _DARK.format(self.n_images)
