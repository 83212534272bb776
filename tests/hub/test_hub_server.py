"""The Hub of the tests serves the plain client of ``huggingface_hub``, and nobody gets past it."""

import hashlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, errors
from huggingface_hub import hf_hub_download as download

from .hub_server import HubServer, use

SMALL, LARGE = b'{"kind": "small"}', bytes(range(250)) * 160
FILES = {"config.json": SMALL, "weights/a b.bin": LARGE}
COMMIT = ("POST", "/api/models/tester/model/commit/main")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as server:
        use(monkeypatch, server, tmp_path / "cache")
        yield server
    assert server.unknown == []


@pytest.fixture
def api(hub):
    return HfApi(token="hf_good")


@pytest.fixture
def model(api):
    return api.create_repo("model").repo_id


def asked(server):
    return [(request.method, request.path) for request in server.requests]


def metadata(path):
    return huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url("org/model", path))


def fetch(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return answer.status, answer.read()


def additions(files):
    return [CommitOperationAdd(path, content) for path, content in files.items()]


@pytest.mark.parametrize("path", FILES)
def test_a_file_is_downloaded(hub, tmp_path, path):
    sha = hub.add("org/model", FILES)
    file = Path(download("org/model", path))
    assert file.read_bytes() == FILES[path]
    assert file == tmp_path / "cache" / "models--org--model" / "snapshots" / sha / path


def test_a_file_that_is_there_is_not_fetched_again(hub):
    hub.add("org/model", FILES)
    download("org/model", "config.json")
    hub.requests.clear()
    download("org/model", "config.json")
    assert asked(hub) == [("HEAD", "/org/model/resolve/main/config.json")]


def test_a_snapshot_is_all_files(hub):
    hub.add("org/model", FILES)
    folder = Path(huggingface_hub.snapshot_download("org/model"))
    assert {path: (folder / path).read_bytes() for path in FILES} == FILES
    assert len([file for file in folder.rglob("*") if file.is_file()]) == len(FILES)


def test_a_file_is_known_by_its_content(hub):
    hub.add("org/model", FILES)
    small, large = (metadata(path) for path in FILES)
    assert small.etag == huggingface_hub.utils.sha.git_hash(SMALL)
    assert large.etag == hashlib.sha256(LARGE).hexdigest()
    assert [small.size, large.size] == [len(SMALL), len(LARGE)]


def test_large_files_come_from_another_address_that_refuses_tokens(hub):
    hub.add("org/model", FILES, private=True)
    download("org/model", "weights/a b.bin", token="hf_good")
    head, get = hub.requests
    assert (head.token, get.token) == ("hf_good", None)
    assert head.headers["host"] != get.headers["host"]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        fetch(f"http://{get.headers['host']}{get.path}", Authorization="Bearer hf_good")


@pytest.mark.parametrize("path", FILES)
def test_the_rest_of_a_file_can_be_asked_for(hub, path):
    hub.add("org/model", FILES)
    assert fetch(metadata(path).location, Range="bytes=5-") == (206, FILES[path][5:])


def test_branches_tags_and_commits_can_be_asked_for(hub):
    old = hub.add("org/model", {"config.json": b"old"})
    hub.tag("org/model", "v1")
    new = hub.add("org/model", {"config.json": b"new"})
    for revision, content in [(old, b"old"), ("v1", b"old"), (new, b"new"), ("main", b"new")]:
        file = download("org/model", "config.json", revision=revision)
        assert Path(file).read_bytes() == content
        assert hub.files("org/model", revision) == {"config.json": content}
    assert [commit.id for commit in hub.commits("org/model")] == [old, new]
    assert HfApi().model_info("org/model", revision="v1").sha == old


@pytest.mark.parametrize(
    ("path", "rest"),
    [("weights/a b.bin", "bytes=20000-"), ("config.json", None)],
    ids=["chunks are kept", "less than a chunk is not"],
)
def test_a_dropped_download_is_resumed(hub, path, rest):
    hub.add("org/model", FILES)
    hub.drop_after(len(FILES[path]) // 2)
    assert Path(download("org/model", path)).read_bytes() == FILES[path]
    first, second = [request for request in hub.requests if request.method == "GET"]
    assert (first.headers["Range"], second.headers["Range"]) == (None, rest)


@pytest.mark.parametrize(
    ("repository", "revision", "path", "token", "error", "status"),
    [
        ("org/none", "main", "config.json", "hf_good", errors.RepositoryNotFoundError, 404),
        ("org/none", "main", "config.json", None, errors.RepositoryNotFoundError, 401),
        ("org/open", "v9", "config.json", None, errors.RevisionNotFoundError, 404),
        ("org/open", "main", "none.json", None, errors.RemoteEntryNotFoundError, 404),
        ("org/open", "main", "config.json", "hf_bad", errors.HfHubHTTPError, 401),
        ("org/private", "main", "config.json", None, errors.RepositoryNotFoundError, 401),
        ("org/private", "main", "config.json", "hf_stranger", errors.RepositoryNotFoundError, 404),
        ("org/gated", "main", "config.json", None, errors.GatedRepoError, 401),
        ("org/gated", "main", "config.json", "hf_stranger", errors.GatedRepoError, 403),
    ],
)
def test_what_cannot_be_had_is_an_error_of_its_own(
    hub, repository, revision, path, token, error, status
):
    hub.add("org/open", FILES)
    hub.add("org/private", FILES, private=True)
    hub.add("org/gated", FILES, gated=True)
    with pytest.raises(errors.HfHubHTTPError) as caught:
        download(repository, path, revision=revision, token=token)
    assert type(caught.value) is error
    assert caught.value.response.status_code == status


@pytest.mark.parametrize("closed", ["private", "gated"])
def test_a_good_token_opens_closed_repositories(hub, closed):
    hub.add("org/model", FILES, **{closed: True})
    assert Path(download("org/model", "config.json", token="hf_good")).read_bytes() == SMALL


def test_a_closed_server_cannot_be_reached(hub):
    hub.add("org/model", FILES)
    download("org/model", "config.json")
    hub.close()
    assert Path(download("org/model", "config.json")).read_bytes() == SMALL
    started = time.monotonic()
    with pytest.raises(errors.LocalEntryNotFoundError):
        download("org/model", "weights/a b.bin")
    assert time.monotonic() - started < 10  # 23 seconds of pauses are skipped


def test_a_new_repository_is_there_and_has_a_commit(hub, api):
    repository = api.create_repo("tester/model", private=True)
    assert repository.url == f"{hub.url}/tester/model"
    assert api.model_info("tester/model").private
    assert len(hub.commits("tester/model")) == 1
    assert api.create_repo("tester/model", exist_ok=True).repo_id == "tester/model"
    with pytest.raises(errors.HfHubHTTPError, match="409"):
        api.create_repo("tester/model")


def test_the_functions_of_the_module_use_the_server_too(hub):
    huggingface_hub.create_repo("org/model", token="hf_good")
    assert len(hub.commits("org/model")) == 1


def test_a_folder_is_uploaded_in_one_commit(hub, api, model, tmp_path):
    for path, content in {**FILES, "README.md": b"---\nlicense: mit\n---\n"}.items():
        (tmp_path / "model" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / path).write_bytes(content)
    told = api.upload_folder(repo_id=model, folder_path=tmp_path / "model", commit_message="Why")
    first, second = hub.commits(model)
    assert (second.id, second.parent, second.message) == (told.oid, first.id, "Why")
    assert hub.files(model).items() >= FILES.items()
    assert told.commit_url == f"{hub.url}/{model}/commit/{second.id}"


def test_large_files_are_uploaded_apart_from_the_commit(hub, api, model):
    api.create_commit(model, additions(FILES), commit_message="Files")
    (put,) = [request for request in hub.requests if request.method == "PUT"]
    (commit,) = [request for request in hub.requests if (request.method, request.path) == COMMIT]
    assert (put.body, put.token) == (LARGE, None)
    assert len(commit.body) < 1000


def test_files_that_are_there_are_not_uploaded_again(hub, api, model):
    api.create_commit(model, additions(FILES), commit_message="Files")
    hub.requests.clear()
    api.create_commit(model, additions({**FILES, "b.bin": LARGE}), commit_message="Copy")
    assert [method for method, _ in asked(hub) if method == "PUT"] == []
    assert len(hub.commits(model)) == 3
    api.create_commit(model, additions(FILES), commit_message="Nothing")
    assert len(hub.commits(model)) == 3


def test_files_are_deleted(hub, api, model):
    api.create_commit(model, additions(FILES), commit_message="Files")
    operations = [CommitOperationDelete("config.json")]
    api.create_commit(model, operations, commit_message="Less", commit_description="Because.")
    assert hub.files(model).keys() == {".gitattributes", "weights/a b.bin"}
    assert hub.commits(model)[-1].message == "Less\n\nBecause."


@pytest.mark.parametrize("token", ["hf_good", "hf_stranger"])
def test_pull_requests_leave_the_branch_alone(hub, model, token):
    for number in (1, 2):
        told = HfApi(token=token).create_commit(
            model, additions(FILES), commit_message="Files", create_pr=True
        )
        assert told.pr_revision == f"refs/pr/{number}"
        assert told.pr_url == f"{hub.url}/{model}/discussions/{number}"
    assert hub.files(model).keys() == {".gitattributes"}
    assert Path(download(model, "config.json", revision="refs/pr/2")).read_bytes() == SMALL


@pytest.mark.parametrize(("token", "status"), [(False, 401), ("hf_stranger", 403)])
def test_nothing_is_uploaded_without_the_right_to(hub, model, token, status):
    for write in (
        lambda api: api.create_repo("tester/other"),
        lambda api: api.create_commit(model, additions(FILES), commit_message="Files"),
    ):
        with pytest.raises(errors.HfHubHTTPError) as caught:
            write(HfApi(token=token))
        assert caught.value.response.status_code == status
    assert len(hub.commits(model)) == 1


def test_a_commit_on_an_old_parent_is_refused(hub, api, model):
    old = hub.commits(model)[-1].id
    hub.add(model, FILES)
    with pytest.raises(errors.HfHubHTTPError, match="412"):
        api.create_commit(model, additions({"a": b""}), commit_message="Late", parent_commit=old)


def test_the_owner_of_a_good_token_is_known(hub, api):
    assert api.whoami()["name"] == "tester"
    with pytest.raises(errors.HfHubHTTPError, match="Invalid user token"):
        HfApi(token="hf_bad").whoami()


def test_what_the_server_does_not_know_is_told(hub, api):
    with pytest.raises(errors.HfHubHTTPError, match=r"501[\s\S]*does not know GET /api/models\?"):
        list(api.list_models(search="x"))
    (unknown,) = hub.unknown
    assert unknown.startswith("GET /api/models?")
    hub.unknown.clear()


def test_tokens_and_settings_of_the_user_do_not_count(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "huggingface").mkdir()
    (tmp_path / "huggingface" / "token").write_text("hf_secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("http_proxy", "http://proxy.example:1")
    monkeypatch.setattr(huggingface_hub.utils._http, "_GLOBAL_CLIENT", None)
    huggingface_hub.get_session()  # which knows of the proxy
    with HubServer() as hub:
        use(monkeypatch, hub, tmp_path / "cache")
        hub.add("org/model", FILES)
        download("org/model", "config.json")
        assert [request.token for request in hub.requests] == [None, None]


def test_afterwards_the_client_is_as_before(tmp_path):
    constants, api = huggingface_hub.constants, huggingface_hub.hf_api.api
    before = dict(vars(constants)), api.endpoint, socket.getaddrinfo
    with HubServer() as hub, pytest.MonkeyPatch.context() as monkeypatch:
        use(monkeypatch, hub, tmp_path)
        assert (hub.url, hub.url) == (constants.ENDPOINT, api.endpoint)
    assert (dict(vars(constants)), api.endpoint, socket.getaddrinfo) == before
    assert "connect" not in vars(socket.socket)


def test_child_processes_find_the_server(hub):
    code = "from huggingface_hub import constants as c; print(c.ENDPOINT, c.HF_HUB_CACHE)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == [hub.url, huggingface_hub.constants.HF_HUB_CACHE]


@pytest.mark.parametrize(
    "reach",
    [
        lambda: HfApi(endpoint="https://huggingface.co").model_info("org/model"),
        lambda: download("org/model", "config.json", endpoint="https://huggingface.co"),
        lambda: urllib.request.urlopen("https://huggingface.co", timeout=1),
        lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
        lambda: socket.socket().connect(("192.0.2.1", 80)),
        lambda: socket.socket().connect_ex(("192.0.2.1", 80)),
    ],
)
def test_no_other_machine_can_be_reached(hub, reach):
    with pytest.raises(RuntimeError, match="A test wanted to reach"):
        reach()
