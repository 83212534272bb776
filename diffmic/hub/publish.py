"""Publishing a saved model on the Hugging Face Hub."""

from pathlib import Path

from ..errors import HubError, warn_user
from .configuration import CONFIG_FILE
from .files import CARD_FILE, WEIGHTS_FILE, written_by_a_person
from .names import said_by_the_hub
from .target import is_our_config, what_a_config_is

NOTICE_FILE = "NOTICE"  # licence terms of the weights


def push_folder(
    folder: Path,
    repository: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    commit_message: str | None = None,
    token: str | bool | None = None,
    told: bool = False,
) -> str:
    """Upload a saved model in one commit; the repository is created if it does not exist.

    A card on the Hub that was written by hand is kept. A ``NOTICE`` file in the folder is uploaded,
    too. The other parameters are those of ``DiffMICClassifier.push_to_hub``.

    Parameters
    ----------
    folder : Path
        Folder of the saved model.
    repository : str
        Name of the repository, ``org/name``.
    told : bool
        Whether a card was passed for this upload, so that a warning is due if it is not used.

    Returns
    -------
    str
        URL of the commit, or of the pull request.

    Raises
    ------
    HubError
        The Hub cannot be reached or refuses the upload, or the repository holds another model.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    api = HfApi(token=token)
    try:
        repository = api.create_repo(repository, private=private, exist_ok=True).repo_id
        found = api.model_info(repository)
        if private and not found.private:
            raise HubError(
                f"{repository} already exists and is public: leave out private=True, or choose "
                "another name."
            )
        _refuse_another_model(api, repository, found)
        names = [CONFIG_FILE, WEIGHTS_FILE]
        if (folder / NOTICE_FILE).is_file():
            names.append(NOTICE_FILE)
        if not _has_card_of_a_person(api, repository, found.sha):
            names.append(CARD_FILE)
        elif told:
            warn_user(
                f"{repository} has a card that a person wrote: it stays, and card=... is not used."
            )
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(name, folder / name) for name in names],
            commit_message=commit_message or "Save a model of diffmic",
            create_pr=create_pr,
            parent_commit=found.sha,  # later commits would be lost
        )
    except HubError:
        raise
    except Exception as reason:  # the client's errors have no common base class
        status = getattr(getattr(reason, "response", None), "status_code", None)
        advice = (
            " Pass a token=... that may write there, or run 'hf auth login'."
            if status in (401, 403) or isinstance(reason, LocalTokenNotFoundError)
            else ""
        )
        said = said_by_the_hub(reason).rstrip(".")
        raise HubError(f"{repository} could not be pushed to the Hub: {said}.{advice}") from reason
    return commit.pr_url or commit.commit_url


def _refuse_another_model(api, repository: str, found) -> None:  # type: ignore[no-untyped-def]
    """Refuse to replace the configuration or the weights of a model of another program."""
    names = {file.rfilename for file in found.siblings or ()}
    if not names & {CONFIG_FILE, WEIGHTS_FILE}:
        return
    what = f"its {WEIGHTS_FILE} has no {CONFIG_FILE}"
    if CONFIG_FILE in names:
        config = Path(api.hf_hub_download(repository, CONFIG_FILE, revision=found.sha))
        if is_our_config(config):
            return
        what = f"its {CONFIG_FILE} {what_a_config_is(config)}"
    raise HubError(
        f"{repository} holds another model: {what}, and would be replaced. Nothing was uploaded; "
        "give another name."
    )


def _has_card_of_a_person(api, repository: str, revision: str | None) -> bool:  # type: ignore[no-untyped-def]
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        card = api.hf_hub_download(repository, CARD_FILE, revision=revision)
    except RemoteEntryNotFoundError:  # but not if the Hub does not answer
        return False
    return written_by_a_person(Path(card))
