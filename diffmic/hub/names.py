"""Names of pretrained models: a folder, a short name, or a repository on the Hugging Face Hub."""

import difflib
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import HubError, InputError, ModelFileError
from .configuration import CONFIG_FILE, read_json
from .files import WEIGHTS_FILE

REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
BUNDLED = Path(__file__).parent / "bundled"
CHECKOUT = Path(__file__).parents[2] / "zoo" / "models"  # not there in an installed package


@dataclass(frozen=True)
class Published:
    """A short name, and where its weights are.

    Attributes
    ----------
    summary : str
        What the model tells from what.
    repository : str or None
        On the Hugging Face Hub; None where nobody has published the weights.
    revision : str or None
        The commit to load.
    sha256 : str or None
        Of the weights; None where nothing is known of them.
    """

    summary: str
    repository: str | None = None
    revision: str | None = None
    sha256: str | None = None


REGISTRY = {
    "diffmic-v2-aptos": Published(
        "Grade of diabetic retinopathy, 0 to 4, in fundus photographs.",
        sha256="e5db322c143025710f1abc8a864e0f3748b5a843438321512f8f641f21206f0f",
    ),
    "diffmic-v2-ham10000": Published(
        "Kind of skin lesion, of 7, in dermatoscopic photographs.",
        sha256="38de7af006e4faac77b5c59ee6e32f0fe06211953b9875301217f88929fd1d25",
    ),
    "diffmic-v2-chestxray14": Published(
        "Presence of 14 findings in chest X-rays (multi-label).",
        sha256="f7f79d0e72774dbf05e14cc70ea2fd4df95ef2e3157c82f89f8e8bcf9e04f4e3",
    ),
    "diffmic-v2-busi": Published(
        "Benign, malignant or normal, in ultrasound of the breast.",
        sha256="bee55e4c6d114a0f3b08233ddc4220ccc49aa2d3e584c1757d46b223dac9f243",
    ),
}


def list_pretrained() -> dict[str, str]:
    """Short names that ``DiffMICClassifier.from_pretrained`` knows.

    Returns
    -------
    dict of str to str
        Each name with what the model does and where its weights are.
    """
    return {name: f"{entry.summary} {_place(name)}" for name, entry in REGISTRY.items()}


def _place(name: str) -> str:
    entry = REGISTRY[name]
    if (BUNDLED / name).is_dir():
        return "Comes with diffmic."
    if (CHECKOUT / name).is_dir():
        return "In this checkout of diffmic."
    if entry.repository is None:
        return f"Not published; in a checkout of diffmic's repository: zoo/models/{name}."
    return f"On the Hugging Face Hub: {entry.repository}."


def locate(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> tuple[Path, str | None]:
    """The folder of a model, and the checksum that its weights must have where that is known.

    An existing folder comes first, then short names, then ``org/name`` or ``org/name@revision``.

    Raises
    ------
    InputError
        Two revisions, or one where there are none.
    ModelFileError
        There is no such model, or nobody has published it.
    HubError
        It cannot be downloaded.
    """
    if name == "":
        raise InputError("name is empty; give the folder of a saved model, or its name.")
    if os.path.isdir(name):  # where a Path would raise because a name is too long
        _refuse_revision(revision, f"{str(name)!r} is a folder")
        return Path(name), None
    hub = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
    entry = REGISTRY.get(name) if isinstance(name, str) else None
    if isinstance(name, str) and entry is not None:
        for home, where in ((BUNDLED, "diffmic"), (CHECKOUT, "this checkout of diffmic")):
            if (home / name).is_dir():
                _refuse_revision(revision, f"{name!r} comes with {where}")
                return home / name, entry.sha256
        if entry.repository is None:
            raise ModelFileError(
                f"Nobody has published the weights of {name!r} yet, and the package does not hold "
                f"them. A checkout of diffmic's repository does: load its zoo/models/{name}. "
                f"Or train them anew there: python -m zoo train {name} --data FOLDER."
            )
        folder = download(entry.repository, revision or entry.revision, **hub)
        return folder, entry.sha256 if revision is None else None
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


def _refuse_revision(revision: str | None, why: str) -> None:
    if revision is not None:
        raise InputError(f"{why}, which has no revisions: leave out revision={revision!r}.")


def _unknown(name: str) -> str:
    asked = name.lower()
    close = [known for known in REGISTRY if asked in known]
    close = close or difflib.get_close_matches(asked, REGISTRY, n=3, cutoff=0.4)
    return (
        f"There is no saved model {name[:200]!r}: it is no folder, no short name"
        + (f" (close ones: {', '.join(close)})" if close else "")
        + ", and no repository, which would be 'org/name'. diffmic.list_pretrained() tells the "
        "short names."
    )


def download(repository: str, revision: str | None, **options: Any) -> Path:
    """A repository's configuration and weights, from the cache or the Hugging Face Hub.

    Parameters
    ----------
    options
        ``cache_dir``, ``token``, ``local_files_only`` of ``huggingface_hub.hf_hub_download``.

    Raises
    ------
    ModelFileError
        No such repository, revision or file.
    HubError
        The Hub cannot be reached, or does not allow it.
    """
    from huggingface_hub import hf_hub_download

    def fetch(file: str, revision: str | None) -> Path:
        return _explained(
            lambda: Path(hf_hub_download(repository, file, revision=revision, **options)),
            repository,
            file,
            revision,
            options["cache_dir"],
        )

    config = fetch(CONFIG_FILE, revision)
    try:
        read_json(config.parent)  # before more is downloaded
    except ModelFileError as reason:
        raise ModelFileError(f"{repository} on the Hub cannot be used: {reason}") from reason
    # The commit that the configuration came from: the branch may move between two downloads.
    fetch(WEIGHTS_FILE, config.parent.name)
    return config.parent


def _explained(
    fetch: Callable[[], Path],
    repository: str,
    file: str,
    revision: str | None,
    cache_dir: str | Path | None,
) -> Path:
    """A file, or an error that says what to do."""
    from huggingface_hub import constants, errors

    at = f" at revision {revision!r}" if revision else ""
    try:
        return fetch()
    except errors.GatedRepoError as reason:
        raise HubError(
            f"{repository} on the Hub is gated: accept its terms on its page, and pass token=... "
            "or run 'hf auth login'."
        ) from reason
    except errors.RepositoryNotFoundError as reason:
        raise ModelFileError(
            f"There is no repository {repository} on the Hub, or it is private: pass token=... or "
            "run 'hf auth login' for a private one. Nor is there a folder of that name here."
        ) from reason
    except errors.RevisionNotFoundError as reason:
        raise ModelFileError(f"{repository} on the Hub has no revision {revision!r}.") from reason
    except errors.LocalEntryNotFoundError as reason:
        options = {"--revision": revision, "--cache-dir": cache_dir}
        given = (f" {option} {shlex.quote(str(x))}" for option, x in options.items() if x)
        command = f"hf download {repository}{''.join(given)}"
        raise HubError(
            f"{repository}{at} is not in the cache {str(cache_dir or constants.HF_HUB_CACHE)!r}, "
            f"and the Hub was not, or could not be, asked ({reason.__cause__ or reason}). Where "
            f"there is a network, run: {command} (There is no folder of that name here, either.)"
        ) from reason
    except errors.EntryNotFoundError as reason:
        raise ModelFileError(
            f"{repository}{at} on the Hub is not a model of diffmic: it has no {file}."
        ) from reason
    except Exception as reason:  # the client's errors have no base of their own
        raise HubError(
            f"{repository}{at} could not be had from the Hub: {said_by_the_hub(reason)}"
        ) from reason


def check_repository(name: Any) -> None:
    """Make sure that a name can be one of a repository.

    Raises
    ------
    InputError
    """
    if not (isinstance(name, str) and REPOSITORY.fullmatch(name)):
        raise InputError(f"repo_id is {name!r}; give 'org/name'.")


def said_by_the_hub(reason: Exception) -> str:
    """What the Hub answered, or else the first line of what its client made of it."""
    told = getattr(reason, "server_message", None) or str(reason)
    return str(told).strip().partition("\n")[0]
