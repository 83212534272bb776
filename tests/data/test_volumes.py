"""Files of volumes, real ones: nibabel's own test files, which come with it."""

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest

from diffmic.data.images import as_image
from diffmic.data.ranges import ValueRange
from diffmic.data.reading import Reading
from diffmic.errors import InputError

FOLDER = Path(nibabel.__file__).parent / "tests" / "data"
FILES = [
    *("anatomical.nii", "reoriented_anat_moved.nii", "standard.nii.gz", "functional.nii"),
    *("example4d.nii.gz", "example_nifti2.nii.gz", "test.mgz", "tiny.mnc"),
    *("example4d+orig.HEAD", "example4d+orig.BRIK.gz", "phantom_EPI_asc_CLEAR_2_1.PAR"),
]


def advice(path):
    with pytest.raises(InputError) as caught:
        as_image(str(path))
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_the_two_lines_of_the_message_give_images(name):
    text = advice(FOLDER / name)
    lines = re.findall(r"^    (.*)$", text, re.MULTILINE)
    assert len(lines) == 2
    names = {"nibabel": nibabel, "file": FOLDER / name, "slices": [0, 1]}
    exec(lines[0], names)
    volume = names["volume"]
    if volume.ndim == 4:
        assert "volume[:, :, k, t]" in text
        names["t"] = 1
        lines[1] = lines[1].replace("[..., k]", "[:, :, k, t]")
        volume = volume[..., 1]
    exec(lines[1], names)
    assert len(names["X"]) == 2
    low, high = float(np.min(names["X"])), float(np.max(names["X"]))
    for k, pixels in zip([0, 1], names["X"], strict=True):
        image = as_image(pixels, reading=Reading(ValueRange.of((low, high))))
        assert image.shape == (1, *volume.shape[:2])
        np.testing.assert_allclose(image[0], (volume[..., k] - low) / (high - low), atol=1e-5)


def test_a_volume_that_was_made_is_named_whatever_its_suffix(tmp_path):
    volume = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4))
    for name in ("a.nii", "a.nii.gz"):
        nibabel.save(volume, tmp_path / name)
        assert "nibabel.load(file).get_fdata()" in advice(tmp_path / name)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.nii").read_bytes())
    assert "nibabel.load(file).get_fdata()" in advice(tmp_path / "a.png")
