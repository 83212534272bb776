"""Publishing a saved model on the Hugging Face Hub."""

from pathlib import Path

from ..errors import HubError
from .files import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, written_by_a_person
from .names import said_by_the_hub


def push_folder(
    folder: Path,
    repository: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    commit_message: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload a saved model in one commit; the repository is made where there is none.

    A card that a person wrote on the Hub stays. See ``DiffMICClassifier.push_to_hub``.

    Returns
    -------
    str
        Address of the commit, or of the pull request.

    Raises
    ------
    HubError
        The Hub cannot be reached, or does not allow it.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token)
    try:
        repository = api.create_repo(repository, private=private, exist_ok=True).repo_id
        names = [CONFIG_FILE, WEIGHTS_FILE]
        if not _has_card_of_a_person(api, repository):
            names.append(CARD_FILE)
        commit = api.create_commit(
            repository,
            [CommitOperationAdd(name, folder / name) for name in names],
            commit_message=commit_message or "Save a model of diffmic",
            create_pr=create_pr,
        )
    except Exception as reason:  # the client's errors have no base of their own
        raise HubError(
            f"{repository} could not be pushed to the Hub: {said_by_the_hub(reason)} Pass a "
            "token=... that may write there, or run 'hf auth login'."
        ) from reason
    return commit.pr_url or commit.commit_url


def _has_card_of_a_person(api, repository: str) -> bool:  # type: ignore[no-untyped-def]
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return written_by_a_person(Path(api.hf_hub_download(repository, CARD_FILE)))
    except EntryNotFoundError:
        return False
