"""The page as a Space of the Hugging Face Hub: the files of its repository."""

import json
from importlib import metadata
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from ..errors import DiffMICError, InputError
from ..hub.names import REPOSITORY
from ..published import list_pretrained

if TYPE_CHECKING:
    from ..classifier import DiffMICClassifier

SPACE_FILES = ("README.md", "app.py", "requirements.txt")
_APP = """\
from diffmic.app import launch

launch($model)
"""
_REQUIREMENTS = """\
# diffmic is on no package index yet: put the address of its repository here.
diffmic[app,dicom,pretrained] @ git+https://github.com/ORGANISATION/diffmic
"""
_README = """\
---
title: $title
sdk: gradio
sdk_version: $gradio
python_version: "3.12"
app_file: app.py
pinned: false
$models---

# $heading

$summary

The page of a diffmic model: calibrated probabilities, doubt, regions, and how the diffusion
denoises. **Not a medical device.** Do not upload images of patients to a public Space.
"""


def write_space(model: str, folder: str | Path, clf: "DiffMICClassifier") -> list[Path]:
    """Write the files of a Space that serves the page of a model.

    Parameters
    ----------
    model : str
        Folder of a saved model, which is copied into the Space; a short name, or ``org/name``.
    folder : str or Path
        New or empty folder.
    clf : DiffMICClassifier
        The model, loaded.

    Returns
    -------
    list of Path
        Files that were written.

    Raises
    ------
    InputError
        The folder holds other files.
    DiffMICError
        gradio is not installed.
    """
    try:
        version = metadata.version("gradio")
    except metadata.PackageNotFoundError as reason:
        raise DiffMICError("The page needs gradio: pip install 'diffmic[app]'.") from reason
    out = Path(folder).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{str(out)!r} is not empty; name a new folder for the Space.")
    named = model in list_pretrained()
    on_hub = not named and not Path(model).expanduser().is_dir() and REPOSITORY.fullmatch(model)
    title = Path(model).name
    out.mkdir(parents=True, exist_ok=True)
    if not named and not on_hub:
        clf.save_pretrained(out / "model")
    values = {
        "title": json.dumps(title),
        "heading": title,
        "gradio": version,
        "models": f"models:\n- {model}\n" if on_hub else "",
        "summary": clf.card_.summary,
        "model": json.dumps(model if named or on_hub else "model"),
    }
    for name, text in zip(SPACE_FILES, (_README, _APP, _REQUIREMENTS), strict=True):
        (out / name).write_text(Template(text).substitute(values), encoding="utf-8")
    return sorted(path for path in out.rglob("*") if path.is_file())
