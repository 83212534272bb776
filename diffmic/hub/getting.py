"""Getting a model by name, as files that have been checked."""

import shutil
from pathlib import Path

from ..errors import InputError, ModelFileError
from .configuration import CONFIG_FILE, read_json
from .files import CARD_FILE, WEIGHTS_FILE, check_weights
from .names import locate
from .publish import NOTICE_FILE
from .target import save_target


def get_model(name: str, out: str | Path | None = None, *, revision: str | None = None) -> Path:
    """Folder of a model, which is downloaded if it has to be, after a check of its files.

    Parameters
    ----------
    name : str
        As for ``DiffMICClassifier.from_pretrained``.
    out : str, Path or None
        Folder to which the files are copied; None: they stay where they are.
    revision : str or None
        Branch, tag or commit on the Hub.

    Raises
    ------
    InputError
        ``out`` belongs to something else or holds a model, or there are no revisions.
    ModelFileError
        There is no such model, its weights are not published, or its files are damaged.
    HubError
        It cannot be downloaded.
    """
    target = None if out is None else save_target(out)
    if target is not None and (target / CONFIG_FILE).exists():
        raise InputError(f"{str(target)!r} holds a model already; give another folder.")
    folder, checksum = locate(name, revision=revision)
    own = read_json(folder).get("weights_sha256")
    if not isinstance(own, str):
        raise ModelFileError(
            f"The {CONFIG_FILE} in {str(folder)!r} has no checksum of the weights."
        )
    for expected in {own, checksum or own}:
        check_weights(folder, expected)
    if target is None:
        return folder
    target.mkdir(parents=True, exist_ok=True)
    for file in (WEIGHTS_FILE, CARD_FILE, NOTICE_FILE, CONFIG_FILE):  # the last completes it
        if (folder / file).is_file():
            shutil.copyfile(folder / file, target / file)
    return target
