"""What a service takes, and how it collects images into batches."""

from dataclasses import dataclass, fields

from ..errors import InputError

NOT_A_MEDICAL_DEVICE = (
    "Not a medical device: neither the model nor the software has been tested for diagnosis."
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a service, and how it collects images into batches.

    Attributes
    ----------
    upload_mb : float
        Largest size of a request, in MB (10⁶ bytes).
    files : int
        Largest number of images in a request.
    pixels : int
        Largest number of pixels of an image, which may be much more than its file tells.
    queue : int
        Number of requests that are accepted at once; others are answered with 503. At most as
        many uploads are in memory.
    timeout : float
        Seconds in which a request must be answered, from its first byte.
    batch : int
        Largest number of images that the model is given at once.
    wait_ms : float
        Milliseconds that an image waits for others, if other requests are on their way.

    Raises
    ------
    InputError
        A value is no positive number (``wait_ms`` may be 0).
    """

    upload_mb: float = 32.0
    files: int = 32
    pixels: int = 50_000_000
    queue: int = 64
    timeout: float = 30.0
    batch: int = 32
    wait_ms: float = 5.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), type(getattr(Limits, field.name))
            good = isinstance(value, (int, kind)) and 0 <= value < 1e12
            if not good or (value == 0 and field.name != "wait_ms"):
                whole = "whole " if kind is int else ""
                raise InputError(f"{field.name} is {value!r}; give a positive {whole}number.")

    @property
    def upload_bytes(self) -> int:
        """Largest size of a request, in bytes."""
        return int(self.upload_mb * 1e6)
