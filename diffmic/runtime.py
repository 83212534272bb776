"""Classifier of exported models, for services without torch: onnxruntime, numpy and Pillow alone.

from diffmic.runtime import OnnxClassifier

clf = OnnxClassifier("model.onnx")  # written by DiffMICClassifier.export_onnx
proba = clf.predict_proba(["a.png", "b.png"])
"""

import io
import os
from collections.abc import Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .depth import UNKNOWN, Range, applied_range, bits_of_png, bits_of_tiff, own_range
from .dicom import dicom_pixels, is_dicom
from .errors import InputError, ModelFileError
from .exported import probabilities_of, read_metadata, session_options

_SIXTEEN_BITS = 65535
_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT, _PLANAR = 262, 258, 339, 284  # tags of TIFF
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")

Floats = NDArray[np.float64]


class OnnxClassifier:
    """Classifier that runs a file of ``DiffMICClassifier.export_onnx`` by ONNX Runtime.

    It reads the usual image files, DICOM (with pydicom), and arrays; for other formats, and for all
    checks of images, use ``DiffMICClassifier``. Probabilities agree with those of the estimator to
    about 1e-4 on the same pixels, and to about 1e-3 where images are resized.

    Parameters
    ----------
    path : str, Path or bytes
        File, or its content.
    num_threads : int, default=0
        Number of threads of ONNX Runtime; 0: one for each core.

    Attributes
    ----------
    classes_ : ndarray of shape (C,)
        Class labels; for multi-label, the column indices.
    class_names_ : list of str
        Names of the classes.
    task_ : str
        "multiclass", "multilabel" or "ordinal".
    image_size_ : int
        Side of the images in the graph, in pixels; images are resized to it. A zoom also gets each
        at the ``zoom_size`` of the metadata, from which it cuts its regions.
    metadata_ : dict
        Everything that the file says about itself.

    Raises
    ------
    ModelFileError
        The file is missing, damaged, or not an exported model of diffmic.
    """

    def __init__(self, path: str | os.PathLike[str] | bytes, *, num_threads: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError as reason:
            raise ModelFileError("onnxruntime is missing: pip install onnxruntime.") from reason
        shown = "The content" if isinstance(path, bytes) else repr(os.fspath(path))
        source = path if isinstance(path, bytes) else Path(path).expanduser()
        if isinstance(source, Path) and not os.path.isfile(source):
            raise ModelFileError(
                f"There is no file {shown}; DiffMICClassifier.export_onnx writes one."
            )
        try:
            self._session = onnxruntime.InferenceSession(
                source if isinstance(source, bytes) else str(source),
                session_options(num_threads),
                providers=["CPUExecutionProvider"],
                enable_fallback=False,  # which prints, and does the same again
            )
        except Exception as reason:  # onnxruntime has an exception for each kind of damage
            raise ModelFileError(f"{shown} is no ONNX file that can be run: {reason}") from reason
        self.metadata_: dict[str, Any] = read_metadata(self._session, shown)
        self.classes_ = np.asarray(self.metadata_["classes"])
        self.class_names_: list[str] = self.metadata_["class_names"]
        self.task_: str = self.metadata_["task"]
        self.image_size_: int = self.metadata_["image_size"]
        zoom_size = self.metadata_.get("zoom_size")
        # Each input of the graph, with the side of its images: those of a zoom are two.
        sides = {"images": self.image_size_} | ({"originals": zoom_size} if zoom_size else {})
        self._sides: dict[str, int] = sides

    def predict_proba(
        self,
        X: Any,
        *,
        stage: Literal["diffusion", "prior"] = "diffusion",
        batch_size: int = 32,
    ) -> Floats:
        """Calibrated probabilities of images.

        Parameters
        ----------
        X : sequence or ndarray
            Image files, PIL images, contents of image files as bytes, arrays of shape (H, W),
            (H, W, 3) or (3, H, W), in a list or, of one size, as one array; uint8, uint16, or
            floats in 0–1, which a model of 8-bit images gets in 8 bits. For a model with a
            ``value_range``, pixels in the units of its images.
        stage : {"diffusion", "prior"}, default="diffusion"
            Stage whose probabilities are given.
        batch_size : int, default=32
            Number of images in memory at once.

        Returns
        -------
        ndarray of shape (n, C)

        Raises
        ------
        InputError
            An image cannot be used, or the stage was not trained.
        ModelFileError
            The graph is damaged.
        """
        if stage not in self.metadata_["stages"]:
            raise InputError(f"stage is {stage!r}; this model has {self.metadata_['stages']}.")
        return np.concatenate([self.run(batch, stage) for batch in self._batches(X, batch_size)])

    def run(
        self,
        images: Sequence[dict[str, NDArray[Any]]],
        stage: Literal["diffusion", "prior"] = "diffusion",
    ) -> Floats:
        """Calibrated probabilities (n, C) of n images from :meth:`prepare`."""
        output = "prior_probabilities" if stage == "prior" else "probabilities"
        batch = {name: np.stack([image[name] for image in images]) for name in self._sides}
        return probabilities_of(self._session, output, batch, len(self.classes_))

    def predict(
        self, X: Any, *, stage: Literal["diffusion", "prior"] = "diffusion"
    ) -> NDArray[Any]:
        """Labels (n,) of images, or an indicator matrix (n, L); see :meth:`predict_proba`."""
        return self.decisions(self.predict_proba(X, stage=stage), stage)

    def decisions(
        self, proba: Floats, stage: Literal["diffusion", "prior"] = "diffusion"
    ) -> NDArray[Any]:
        """Labels (n,), or an indicator matrix (n, L), that follow from probabilities (n, C)."""
        labels = self.classes_
        thresholds = self.metadata_["thresholds"].get(stage)
        if self.task_ == "multilabel":
            return (proba >= np.asarray(0.5 if thresholds is None else thresholds)).astype(int)
        if thresholds is None:
            position = proba.argmax(axis=1)
        else:  # of two classes, or cut points between grades
            expected = proba @ np.arange(proba.shape[1])
            position = (expected[:, None] >= np.asarray(thresholds)).sum(axis=1)
        found: NDArray[Any] = labels[position]
        return found

    def _batches(self, X: Any, batch_size: int) -> Iterator[list[dict[str, NDArray[Any]]]]:
        if isinstance(X, (str, bytes, os.PathLike, Image.Image)):
            raise InputError("X is a single image; give a list of images, such as [image].")
        if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
            raise InputError(f"batch_size is {batch_size!r}; it must be an integer, at least 1.")
        listed = isinstance(X, Sequence)
        if not listed and (not hasattr(X, "__array__") or np.ndim(X) == 1):  # such as paths
            X = list(X)
        if len(X) == 0:
            raise InputError("X has no images.")
        if hasattr(X, "__array__") and np.ndim(X) not in (3, 4):
            raise InputError(
                f"X has the shape {np.shape(X)}; give (n, H, W), (n, H, W, 3) or (n, 3, H, W)."
            )
        for start in range(0, len(X), batch_size):
            batch = X[start : start + batch_size]
            yield [self.prepare(x, f"image {start + i}") for i, x in enumerate(batch)]

    def prepare(self, value: Any, name: str = "image") -> dict[str, NDArray[Any]]:
        """Pixels (3, S, S) of one image for each input of the graph; errors call it by its name.

        Raises
        ------
        InputError
            The image cannot be used.
        """
        if isinstance(value, (str, os.PathLike)):
            name = f"image file {os.fsdecode(value)!r}"
        try:
            pixels = self._in_range(*self._pixels(value))
        except InputError as reason:
            raise InputError(f"{name}: {reason}") from reason
        except Exception as reason:  # Pillow raises many kinds of exceptions
            raise InputError(
                f"{name} cannot be read: {type(reason).__name__}: {reason}. "
                "DiffMICClassifier reads more formats, and says more."
            ) from reason
        if self.metadata_["crop"] == "square":
            pixels = _central_square(pixels)
        return {each: self._of_side(pixels, side) for each, side in self._sides.items()}

    def _of_side(self, pixels: NDArray[Any], side: int) -> NDArray[Any]:
        floats, size = self.metadata_["value_range"] is not None, (side, side)
        shape = pixels.shape[1:]
        channels = [_resized(channel, size) if shape != size else channel for channel in pixels]
        resized: NDArray[Any] = np.stack(channels * (3 if len(channels) == 1 else 1))
        if floats and resized.dtype == np.uint8:
            return resized.astype(np.float32) / 255
        if not floats and resized.dtype != np.uint8:
            rounded: NDArray[np.uint8] = np.rint(resized * 255).astype(np.uint8)
            return rounded
        return resized

    def _pixels(self, value: Any) -> tuple[NDArray[Any], Range | None]:
        """Pixels (C, H, W) of a file, its content, a PIL image or an array; a file's own range."""
        if isinstance(value, (str, os.PathLike)):
            with open(Path(value).expanduser(), "rb") as file:
                return self._decoded(file, os.fsdecode(value))
        if isinstance(value, bytes):
            return self._decoded(io.BytesIO(value), "")
        if isinstance(value, Image.Image):
            return _of_pillow(value)
        if np.ma.is_masked(value):
            raise InputError("has masked pixels; give them a value: X.filled(0) for black.")
        pixels = np.asarray(value)
        if pixels.ndim == 2:
            return pixels[None], None
        if pixels.ndim == 3 and pixels.shape[0] not in (1, 3) and pixels.shape[2] in (1, 3):
            return np.moveaxis(pixels, 2, 0), None
        return (pixels if pixels.ndim == 3 else pixels[(np.newaxis,) * 3]), None

    def _decoded(self, file: BinaryIO, name: str) -> tuple[NDArray[Any], Range | None]:
        head = file.read(132)
        file.seek(0)
        if is_dicom(head, name):
            given = self.metadata_["value_range_given"]
            return dicom_pixels(file, tuple(self.metadata_["value_range"]) if given else None)
        bits = bits_of_png(file)
        file.seek(0)
        with Image.open(file) as image:
            return _of_pillow(image, bits)

    def _in_range(self, pixels: NDArray[Any], own: Range | None) -> NDArray[Any]:
        """uint8 as it is, anything else as float32 in 0–1."""
        if 0 in pixels.shape or len(pixels) not in (1, 3):
            raise InputError(f"has the shape {pixels.shape}; 1 or 3 channels are needed.")
        pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
        if pixels.dtype.kind not in "iuf":
            raise InputError(f"has pixels of type {pixels.dtype}; give uint8, or floats in 0–1.")
        if pixels.dtype == np.uint8:
            return pixels
        values, floats = self.metadata_["value_range"], pixels.dtype.kind == "f"
        if not np.isfinite(pixels).all():
            raise InputError("has pixels that are NaN or infinite.")
        if not floats and not self.metadata_["value_range_given"]:
            values = applied_range(values, own)
        if values is not None and (self.metadata_["value_range_given"] or not floats):
            low, high = values
            scaled: NDArray[Any] = (pixels.astype(np.float32) - low) / (high - low)
            return scaled.clip(0, 1)
        lowest, highest = float(pixels.min()), float(pixels.max())
        if floats and lowest >= -1e-3 and highest <= 1 + 1e-3:
            return pixels.astype(np.float32).clip(0, 1)
        whole = pixels.dtype == np.uint16 or (not floats and lowest >= 0 and 255 < highest < 2**16)
        if whole and own != UNKNOWN:
            return pixels.astype(np.float32) / _SIXTEEN_BITS
        raise InputError(
            f"has pixels from {lowest:g} to {highest:g}, whose range is not known; uint8, uint16 "
            "or floats in 0–1 are needed."
        )


def _of_pillow(image: Image.Image, bits: int = 0) -> tuple[NDArray[Any], Range | None]:
    """Pixels of a PIL image: upright, in gray or RGB, transparent ones on black; its own range."""
    _check_samples(image)
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I") or turned.mode == "F":
        dtype = {"F": np.float32, "I": np.int32}.get(turned.mode, np.uint16)
        pixels = np.array(turned, dtype=dtype)[None]
        told = bits or bits_of_tiff(getattr(image, "tag_v2", {}))
        return pixels, own_range(pixels, told, shifted=bits > 0)
    gray = turned.mode in ("1", "L", "LA", "La")
    if turned.mode in _ALPHA or "transparency" in turned.info:
        values = np.array(turned.convert("LA" if gray else "RGBA")).astype(np.uint32)
        shown = ((values[..., :-1] * values[..., -1:] + 127) // 255).astype(np.uint8)
        return np.moveaxis(shown, 2, 0), None
    if turned.mode == "LAB":
        raise InputError("is in LAB; convert it to RGB.")
    shown = np.array(turned.convert("L" if gray else "RGB"))
    return (shown[None] if gray else np.moveaxis(shown, 2, 0)), None


def _check_samples(image: Image.Image) -> None:
    """Refuse files whose samples Pillow gives as other ones than the estimator reads."""
    tags, why = getattr(image, "tag_v2", None) or {}, ""
    bits = max(tags.get(_BITS) or (8,))
    plain = not image.mode.startswith("I") and image.mode != "F"
    if tags.get(_PHOTOMETRIC) == 0 and not plain:
        why = "a TIFF in which zero is white"
    elif plain and bits > 8 and tags.get(_PLANAR) == 2:
        why = f"a TIFF of {bits} bits with separate planes"
    elif plain and bits == 8 and 2 in (tags.get(_SAMPLE_FORMAT) or ()):
        why = "a TIFF of signed bytes"
    elif image.format == "PNG" and any(";16" in str(tile[3]) for tile in _tiles(image)):
        why = "a colour PNG of 16 bits, of which 8 would be lost"
    if why:
        raise InputError(
            f"is {why}. Read it by another reader and pass the array, or use DiffMICClassifier."
        )


def _tiles(image: Image.Image) -> Sequence[Any]:
    """How a file that is not yet decoded is stored, if it has colours or transparency."""
    return getattr(image, "tile", ()) if image.mode in ("RGB", "RGBA", "LA") else ()


def _central_square(pixels: NDArray[Any]) -> NDArray[Any]:
    """The largest square in the centre of an image (C, H, W)."""
    height, width = pixels.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[:, top : top + side, left : left + side]


def _resized(channel: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """One channel (H, W), uint8 or float32, resized with antialiasing."""
    resized: NDArray[Any] = np.asarray(
        Image.fromarray(np.ascontiguousarray(channel)).resize(size, Image.Resampling.BILINEAR)
    )
    return resized
