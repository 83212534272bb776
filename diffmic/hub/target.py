"""The folder into which a model is saved: checked before anything is computed or written."""

import json
import os
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..errors import InputError
from .configuration import CONFIG_FILE, LARGEST_CONFIG
from .files import CARD_FILE, WEIGHTS_FILE

# What shows that a folder holds the model, or the source code, of another program.
_OTHER_MODELS = (
    *("pytorch_model*", "tf_model*", "flax_model*", "saved_model.pb", "model-*.safetensors"),
    *("*.safetensors.index.json", "adapter_*", "tokenizer*", "preprocessor_config.json"),
    *("processor_config.json", "model_index.json", "open_clip_*"),
)
_PROJECTS = (
    *("pyproject.toml", "setup.py", "setup.cfg", "package.json", "Cargo.toml", "go.mod", "pom.xml"),
    *("Project.toml", "CMakeLists.txt", "Makefile", ".hg", ".svn"),
)
# What a repository of a model on the Hub may hold before the model does.
_OF_THE_HUB = (".git*", CARD_FILE, "LICENSE*", "NOTICE*", "CITATION*")


def save_target(path: Any) -> Path:
    """Folder in which to save a model, with ``~`` expanded, after a check that it may be used.

    It may be new or empty, hold a model that diffmic saved, or hold files of which none belongs to
    another model or project. Nothing is written.

    Raises
    ------
    InputError
        ``path`` is no path, is a file, or is a folder that belongs to something else.
    """
    if not isinstance(path, (str, os.PathLike)) or isinstance(os.fspath(path), bytes) or path == "":
        raise InputError(f"path is {path!r}; give the folder in which to save the model.")
    folder = Path(os.path.expanduser(path))  # Path.expanduser raises if there is no such user
    try:
        str(folder).encode()  # the format of the weights takes no other paths
        whole = folder.resolve()
        found = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    except (ValueError, RuntimeError, OSError) as reason:
        if isinstance(reason, PermissionError):
            raise
        raise InputError(f"path is {str(path)!r}, which cannot be used: {reason}.") from reason
    if any(parent.is_file() for parent in (whole, *whole.parents)):
        raise InputError(
            f"No folder can be made at {str(folder)!r}: this path, or the path of one of its "
            "parent folders, is a file. Give another path."
        )
    if why := _belongs_to_something_else(folder, whole, found):
        raise InputError(
            f"The model is not saved in {str(folder)!r}: {why}. Nothing was written. Give another "
            f"folder, for example {str(folder / 'model')!r}."
        )
    return folder


def _belongs_to_something_else(folder: Path, whole: Path, found: list[str]) -> str:
    """Why a model must not be saved in a folder; empty if it may."""
    if whole in (Path.home().resolve(), Path(whole.anchor)):
        return "it is your home folder" if whole != Path(whole.anchor) else "it is the root folder"
    config, ours = folder / CONFIG_FILE, is_ours(folder)
    if not ours and os.path.lexists(config):
        return f"its {CONFIG_FILE} {what_a_config_is(config)}, and would be replaced"
    if not ours and WEIGHTS_FILE in found:
        return f"its {WEIGHTS_FILE} is not of a model that diffmic saved, and would be replaced"
    for name in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE):
        if (folder / name).is_dir():
            return f"its {name} is a folder"
    if ours:
        return ""
    if other := [name for name in found if any(fnmatch(name, kind) for kind in _OTHER_MODELS)]:
        return f"it holds another model ({', '.join(other[:3])})"
    if library := _library_of(folder / CARD_FILE):
        return f"its {CARD_FILE} is the card of a model of {library}"
    of_a_project = [name for name in found if name in _PROJECTS]
    if ".git" in found and not all(any(fnmatch(n, kind) for kind in _OF_THE_HUB) for n in found):
        of_a_project = [".git", *of_a_project]
    if of_a_project:
        return f"it is the folder of a project ({', '.join(of_a_project[:3])})"
    return ""


def is_ours(folder: Path) -> bool:
    """Whether a folder holds a model that diffmic saved, even if its configuration is damaged."""
    if is_our_config(folder / CONFIG_FILE):
        return True
    if isinstance(_json_of(folder / CONFIG_FILE), dict):
        return False  # another program's, beside a card of ours
    try:
        text = (folder / CARD_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "<!-- Made by diffmic;" in text and "library_name: diffmic" in text


def is_our_config(file: Path) -> bool:
    """Whether a configuration was written by diffmic."""
    config = _json_of(file)
    return isinstance(config, dict) and {"format_version", "weights_sha256"} <= config.keys()


def what_a_config_is(file: Path) -> str:
    """What another program's configuration is, as the end of a sentence on it."""
    config = _json_of(file)
    if not isinstance(config, dict):
        return "was not written by diffmic"
    for key in ("model_type", "architectures", "architecture", "_class_name"):
        if key in config:
            return f"belongs to another model ({key}: {str(config[key])[:60]})"
    return f"was not written by diffmic (its keys: {', '.join(map(str, [*config][:5]))})"


def _json_of(file: Path) -> Any:
    """Contents of a JSON file; None if it is not one."""
    try:
        if file.stat().st_size > LARGEST_CONFIG:
            return None
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _library_of(card: Path) -> str:
    """Library that the header of a model card names, if it is another one."""
    try:
        text = card.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    header = text[3:].partition("\n---")[0] if text.startswith("---") else ""
    for line in header.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "library_name" and value.strip() not in ("", "diffmic"):
            return value.strip()
    return ""
