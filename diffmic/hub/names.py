"""Model names: a folder, a short name, or a repository on the Hugging Face Hub."""

import difflib
import os
import re
import shlex
from pathlib import Path
from typing import Any

from ..errors import HubError, InputError, ModelFileError
from ..published import REGISTRY, bundled
from .configuration import CONFIG_FILE, read_json
from .files import WEIGHTS_FILE

REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def locate(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> tuple[Path, str | None]:
    """Folder of a model, and the expected checksum of its weights if it is known.

    Names are tried in this order: existing folder, short name, repository ``org/name`` or
    ``org/name@revision``. The other parameters are those of ``DiffMICClassifier.from_pretrained``.

    Raises
    ------
    InputError
        Two revisions are given, or one for a model without revisions.
    ModelFileError
        There is no such model, or its weights are not published.
    HubError
        The model cannot be downloaded.
    """
    if name == "":
        raise InputError("name is empty; give the folder of a saved model, or its name.")
    folder = os.path.expanduser(name)
    if os.path.isdir(folder):  # a Path would raise if the name is too long
        _refuse_revision(revision, f"{str(name)!r} is a folder")
        return Path(folder), None
    cache_dir = None if cache_dir is None else os.path.expanduser(cache_dir)
    hub = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
    entry = REGISTRY.get(name) if isinstance(name, str) else None
    if isinstance(name, str) and entry is not None:
        if (folder_here := bundled(name)) is not None:
            _refuse_revision(revision, f"{name!r} comes with diffmic")
            return folder_here, entry.sha256
        if entry.repository is None:
            raise ModelFileError(
                f"No published weights are available for {name!r}, and they are not in the "
                f"package. In a checkout of diffmic's repository load the folder zoo/models/{name} "
                f"or train the model there: python -m zoo train {name} --data FOLDER."
            )
        downloaded = download(entry.repository, revision or entry.revision, **hub)
        return downloaded, entry.sha256 if revision is None else None
    repository, at, named = str(name).partition("@")
    is_repository = REPOSITORY.fullmatch(repository) and bool(at) == bool(named)
    if isinstance(name, Path) or not is_repository or os.path.exists(name):
        if isinstance(name, Path) and str(name) in REGISTRY:
            raise ModelFileError(
                f"There is no saved model {str(name)!r} here, and a Path is always a folder. For "
                f"the model of that name pass the string: from_pretrained({str(name)!r})."
            )
        raise ModelFileError(_unknown(str(name)))
    if revision is not None and named:
        raise InputError(
            f"Two revisions: {named!r} in the name, and revision={revision!r}. Leave one out."
        )
    return download(repository, revision or named or None, **hub), None


def origin_of(name: str | Path) -> tuple[str, str | None]:
    """Name to tell of a model that :func:`locate` finds, and that of its weights for a card.

    For a folder these are its own name, without its place on this machine, and None.
    """
    folder = os.path.expanduser(name)
    if os.path.isdir(folder):
        return Path(folder).resolve().name, None
    entry = REGISTRY.get(str(name))
    return str(name), (entry and entry.repository) or str(name).partition("@")[0]


def _refuse_revision(revision: str | None, why: str) -> None:
    if revision is not None:
        raise InputError(f"{why}, which has no revisions: leave out revision={revision!r}.")


def _unknown(name: str) -> str:
    if os.path.isfile(os.path.expanduser(name)):
        return (
            f"There is no saved model {name[:200]!r}: it is a file; give the folder of a model. "
            + (
                "An exported model predicts by diffmic.runtime.OnnxClassifier or `diffmic serve`."
                if name.lower().endswith(".onnx")
                else "That holds config.json and model.safetensors."
            )
        )
    asked = name.lower()
    close = [known for known in REGISTRY if asked in known]
    close = close or difflib.get_close_matches(asked, REGISTRY, n=3, cutoff=0.4)
    return (
        f"There is no saved model {name[:200]!r}: it is neither a folder nor a short name"
        + (f" (close ones: {', '.join(close)})" if close else "")
        + ", nor a repository ('org/name'). diffmic.list_pretrained() lists the short names."
    )


def download(repository: str, revision: str | None, **options: Any) -> Path:
    """Folder in the cache with configuration and weights of a repository ``org/name``.

    The revision is a branch, tag or commit; None: the main branch. The options are ``cache_dir``,
    ``token`` and ``local_files_only`` of ``huggingface_hub.hf_hub_download``. A ModelFileError says
    that there is no such repository, revision or file; a HubError, that the Hub cannot be reached
    or refuses access.
    """
    config = _fetched(repository, CONFIG_FILE, revision, options)
    try:
        read_json(config.parent)  # checked before the weights are downloaded
    except ModelFileError as reason:
        raise ModelFileError(f"{repository} on the Hub cannot be used: {reason}") from reason
    # The commit that the configuration came from: the branch may move between two downloads.
    _fetched(repository, WEIGHTS_FILE, config.parent.name, options)
    return config.parent


def _fetched(repository: str, file: str, revision: str | None, options: dict[str, Any]) -> Path:
    """A file of a repository; errors of the client are translated to those of diffmic."""
    from huggingface_hub import constants, errors, hf_hub_download

    cache_dir = options["cache_dir"]
    at = f" at revision {revision!r}" if revision else ""
    try:
        return Path(hf_hub_download(repository, file, revision=revision, **options))
    except errors.GatedRepoError as reason:
        raise HubError(
            f"{repository} on the Hub is gated: accept its terms on its page, and pass token=... "
            "or run 'hf auth login'."
        ) from reason
    except errors.RepositoryNotFoundError as reason:
        raise ModelFileError(
            f"There is no repository {repository} on the Hub, or it is private: pass token=... or "
            "run 'hf auth login' for a private one. There is no local folder of that name either."
        ) from reason
    except errors.RevisionNotFoundError as reason:
        raise ModelFileError(f"{repository} on the Hub has no revision {revision!r}.") from reason
    except errors.LocalEntryNotFoundError as reason:
        flags = {"--revision": revision, "--cache-dir": cache_dir}
        given = (f" {flag} {shlex.quote(str(x))}" for flag, x in flags.items() if x)
        command = f"hf download {repository}{''.join(given)}"
        raise HubError(
            f"{repository}{at} is not in the cache {str(cache_dir or constants.HF_HUB_CACHE)!r}, "
            f"and the Hub was not accessed or not reachable ({reason.__cause__ or reason}). With "
            f"network access, run: {command} (There is no local folder of that name, either.)"
        ) from reason
    except errors.EntryNotFoundError as reason:
        raise ModelFileError(
            f"{repository}{at} on the Hub is not a model of diffmic: it has no {file}."
        ) from reason
    except Exception as reason:  # the client's errors have no common base class
        raise HubError(
            f"{repository}{at} could not be loaded from the Hub: {said_by_the_hub(reason)}"
        ) from reason


def check_repository(name: Any) -> None:
    """Check that a name is a repository name, ``org/name``; else an InputError."""
    if not (isinstance(name, str) and REPOSITORY.fullmatch(name)):
        raise InputError(f"repo_id is {name!r}; give 'org/name'.")


def said_by_the_hub(reason: Exception) -> str:
    """Error message of the Hub, or else the first line of the client's message."""
    told = getattr(reason, "server_message", None) or str(reason)
    return str(told).strip().partition("\n")[0]
