"""Models come from and go to a Hugging Face Hub, with the real client of huggingface_hub."""

import copy
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub.hub_server import HubServer, Refusal, use
from huggingface_hub import constants
from numpy.testing import assert_array_equal
from tiny import small, stripes
from typer.testing import CliRunner

from diffmic import (
    DiffMICClassifier,
    DiffMICWarning,
    HubError,
    InputError,
    ModelCard,
    ModelFileError,
)
from diffmic.cli import app
from diffmic.hub import push_folder
from diffmic.hub.files import digest
from diffmic.published import REGISTRY, Published

pytestmark = pytest.mark.filterwarnings("ignore::diffmic.DiffMICWarning")
REPO = "org/stripes"
FILES = ("config.json", "model.safetensors", "README.md")
NEW_IMAGES = stripes(3, seed=9)[0]


@pytest.fixture(scope="module")
def classifier():
    parameters = small(backbone="test_resnet", pretrained=False, max_epochs=1)
    return DiffMICClassifier(**parameters).fit(*stripes(30))


@pytest.fixture(scope="module")
def files(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    classifier.save_pretrained(folder)
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch, cache):
    with HubServer() as server:
        use(monkeypatch, server, cache)
        yield server
        assert server.unknown == []


@pytest.fixture
def published(hub, files):
    """The Hub with the model on it."""
    hub.add(REPO, files)
    return hub


def load(name=REPO, **options):
    return DiffMICClassifier.from_pretrained(name, device="cpu", **options)


def asked_for_files(hub):
    return [r for r in hub.requests if r.method == "GET"]


def test_a_repository_loads_and_answers_as_the_model_that_was_saved(published, classifier):
    assert_array_equal(load().predict_proba(NEW_IMAGES), classifier.predict_proba(NEW_IMAGES))


def test_only_configuration_and_weights_are_downloaded(published, cache):
    load()
    assert {file.name for file in cache.rglob("snapshots/*/*")} == {*FILES} - {"README.md"}


@pytest.mark.parametrize("how", ["in the name", "as an argument"])
def test_a_revision_is_loaded(hub, files, classifier, how):
    first = hub.add(REPO, files)
    hub.tag(REPO, "v1")
    hub.add(REPO, {"config.json": b"{}"})
    for revision in (first, "v1"):
        loaded = load(f"{REPO}@{revision}") if how == "in the name" else load(revision=revision)
        assert loaded.classes_.tolist() == [0, 1, 2]
    with pytest.raises(ModelFileError, match="format version"):
        load()
    with pytest.raises(ModelFileError, match="no revision 'v9'"):
        load(f"{REPO}@v9")


def test_what_is_in_the_cache_loads_without_a_network(published, monkeypatch):
    expected = load().predict_proba(NEW_IMAGES)
    published.close()
    assert_array_equal(load().predict_proba(NEW_IMAGES), expected)
    assert_array_equal(load(local_files_only=True).predict_proba(NEW_IMAGES), expected)


def test_a_commit_in_the_cache_asks_nothing(published):
    commit = published.commits(REPO)[-1].id
    load(revision=commit)
    before = len(published.requests)
    load(revision=commit)
    assert len(published.requests) == before


@pytest.mark.parametrize("why", ["no network", "offline by argument", "offline by environment"])
def test_offline_and_not_in_the_cache_names_cache_repository_and_command(
    published, cache, monkeypatch, why
):
    if why == "no network":
        published.close()
    if why == "offline by environment":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError) as caught:
        load(revision="v1", local_files_only=why == "offline by argument")
    told = str(caught.value)
    for part in (REPO, str(cache), f"hf download {REPO} --revision v1"):
        assert part in told
    assert published.requests == [] or why == "no network"


def test_another_cache_is_used_and_named(published, tmp_path):
    with pytest.raises(HubError, match=re.escape(str(tmp_path / "mine"))):
        load(cache_dir=tmp_path / "mine", local_files_only=True)
    load(cache_dir=tmp_path / "mine")
    assert list((tmp_path / "mine").rglob("model.safetensors"))


def test_a_private_repository_needs_a_token(hub, files):
    hub.add(REPO, files, private=True)
    with pytest.raises(ModelFileError, match=r"private: pass token"):
        load()
    assert load(token="hf_good").classes_.tolist() == [0, 1, 2]


def test_a_gated_repository_says_that_its_terms_must_be_accepted(hub, files):
    hub.add(REPO, files, gated=True)
    with pytest.raises(HubError, match="gated: accept its terms"):
        load(token="hf_stranger")


def test_a_token_that_is_wrong_is_said_to_be(hub, files):
    hub.add(REPO, files)
    with pytest.raises(HubError, match="Invalid credentials"):
        load(token="hf_bad")


def test_no_such_repository_is_an_error_that_says_so(hub):
    with pytest.raises(ModelFileError, match="no repository org/circles"):
        load("org/circles")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_repository_of_something_else_is_an_error_that_names_the_file(hub, files, missing):
    hub.add(REPO, {name: content for name, content in files.items() if name != missing})
    with pytest.raises(ModelFileError, match=rf"not a model of diffmic: it has no {missing}"):
        load()


def test_a_dropped_connection_is_resumed(published, classifier):
    published.drop_after(20_000)
    assert_array_equal(load().predict_proba(NEW_IMAGES), classifier.predict_proba(NEW_IMAGES))
    resumed = [r.headers["Range"] for r in asked_for_files(published) if r.headers["Range"]]
    assert [range_ for range_ in resumed if range_ != "bytes=0-"]


def test_a_short_name_loads_its_pinned_revision_and_checks_the_weights(hub, files, monkeypatch):
    commit, checksum = hub.add(REPO, files), digest(files["model.safetensors"])
    hub.add(REPO, {"config.json": b"{}"}, message="Moved on")
    monkeypatch.setitem(REGISTRY, "stripes-v3", Published("", REPO, commit, checksum))
    assert load("stripes-v3").classes_.tolist() == [0, 1, 2]
    monkeypatch.setitem(REGISTRY, "stripes-v3", Published("", REPO, commit, "0" * 64))
    with pytest.raises(ModelFileError, match="checksum"):
        load("stripes-v3")


@pytest.mark.slow
def test_the_environment_leads_to_another_hub_in_a_process_of_its_own(published):
    code = (
        "from diffmic import DiffMICClassifier as C; "
        f"print(C.from_pretrained('{REPO}', device='cpu').classes_)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[0 1 2]"
    assert asked_for_files(published)


def test_pushing_makes_the_repository_and_one_commit(hub, classifier):
    address = copy.deepcopy(classifier).push_to_hub(
        REPO, commit_message="Stripes, first", token="hf_good"
    )
    first, commit = hub.commits(REPO)
    assert address == f"{hub.url}/{REPO}/commit/{commit.id}"
    assert (first.message, commit.message) == ("initial commit", "Stripes, first")
    assert commit.files.keys() - first.files.keys() == {*FILES}
    assert f'from_pretrained("{REPO}")' in commit.files["README.md"].decode()
    assert_array_equal(load().predict_proba(NEW_IMAGES), classifier.predict_proba(NEW_IMAGES))


def test_pushing_again_replaces_weights_and_card(published, classifier):
    changed = copy.deepcopy(classifier)
    changed.push_to_hub(REPO, token="hf_good", dtype="float16", card=ModelCard(summary="Anew."))
    assert b"Anew." in published.files(REPO)["README.md"]
    sizes = [len(c.files["model.safetensors"]) for c in published.commits(REPO)]
    assert sizes[1] < 0.55 * sizes[0]


def test_a_card_that_a_person_wrote_on_the_hub_stays(hub, files, classifier):
    hub.add(REPO, files | {"README.md": b"# Mine"})
    copy.deepcopy(classifier).push_to_hub(REPO, token="hf_good", dtype="float16")
    assert hub.files(REPO)["README.md"] == b"# Mine"
    assert len(hub.files(REPO)["model.safetensors"]) < len(files["model.safetensors"])


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"config.json": b'{"model_type": "vit"}', "vit.bin": b"w"}, r"model_type: vit"),
        ({"config.json": b"not JSON"}, r"was not written by diffmic"),
        ({"model.safetensors": b"weights"}, r"model\.safetensors has no config\.json"),
    ],
)
@pytest.mark.parametrize("create_pr", [False, True])
def test_another_model_on_the_hub_is_not_replaced(hub, classifier, theirs, message, create_pr):
    hub.add(REPO, theirs)
    with pytest.raises(HubError, match=rf"holds another model.*{message}.*Nothing was uploaded"):
        copy.deepcopy(classifier).push_to_hub(REPO, token="hf_good", create_pr=create_pr)
    assert hub.files(REPO) == theirs


def test_the_terms_go_along_where_there_are_any(hub, files, tmp_path):
    for name, content in (files | {"NOTICE": b"Mind.", "notes.txt": b"Mine."}).items():
        (tmp_path / name).write_bytes(content)
    push_folder(tmp_path, REPO, token="hf_good")
    assert hub.files(REPO)["NOTICE"] == b"Mind."
    assert "notes.txt" not in hub.files(REPO)
    assert len(hub.commits(REPO)) == 2  # the Hub's own, and ours


def test_a_private_repository_is_private(hub, classifier):
    copy.deepcopy(classifier).push_to_hub(REPO, private=True, token="hf_good")
    with pytest.raises(ModelFileError, match="private"):
        load()


def test_a_pull_request_leaves_the_main_branch_alone(published, classifier):
    before = published.files(REPO)
    address = copy.deepcopy(classifier).push_to_hub(
        REPO, create_pr=True, token="hf_stranger", dtype="float16"
    )
    assert address == f"{published.url}/{REPO}/discussions/1"
    assert published.files(REPO) == before
    proposed = published.files(REPO, "refs/pr/1")
    assert len(proposed["model.safetensors"]) < len(before["model.safetensors"])


def test_pushing_without_a_token_says_what_to_do(hub, classifier):
    with pytest.raises(HubError, match=r"token=.*hf auth login"):
        copy.deepcopy(classifier).push_to_hub(REPO)


def test_pushing_where_one_may_not_write_says_so(published, classifier):
    with pytest.raises(HubError, match="no right to change"):
        copy.deepcopy(classifier).push_to_hub(REPO, token="hf_stranger")


def test_pushing_without_a_network_is_an_error_of_the_hub(hub, classifier):
    hub.close()
    with pytest.raises(HubError, match="could not be pushed"):
        copy.deepcopy(classifier).push_to_hub(REPO, token="hf_good")


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_where_the_hub_does_not_tell_whether_there_is_a_card_nothing_is_pushed(
    hub, files, classifier, monkeypatch, status
):
    hub.add(REPO, files | {"README.md": b"# Mine"})
    answer = HubServer._file

    def hiccup(server, request, repo_id, revision, path):
        if path == "README.md":
            raise Refusal(status, None, "Not now.")
        return answer(server, request, repo_id, revision, path)

    monkeypatch.setattr(HubServer, "_file", hiccup)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client tries again
    with pytest.raises(HubError, match="could not be pushed"):
        copy.deepcopy(classifier).push_to_hub(REPO, token="hf_good", dtype="float16")
    assert hub.files(REPO) == files | {"README.md": b"# Mine"}


def test_what_was_written_on_the_hub_meanwhile_is_not_lost(hub, files, classifier, monkeypatch):
    hub.add(REPO, files)
    answer = HubServer._preupload

    def overtaken(server, request, repo_id, revision, pr=""):
        hub.add(REPO, files | {"README.md": b"# Mine"}, message="By hand")
        return answer(server, request, repo_id, revision, pr)

    monkeypatch.setattr(HubServer, "_preupload", overtaken)
    with pytest.raises(HubError, match=r"could not be pushed.*since"):
        copy.deepcopy(classifier).push_to_hub(REPO, token="hf_good", dtype="float16")
    assert hub.files(REPO)["README.md"] == b"# Mine"


def test_a_card_that_is_given_but_not_used_is_told(hub, files, classifier):
    hub.add(REPO, files | {"README.md": b"# Mine"})
    with pytest.warns(DiffMICWarning, match="a card that a person wrote: it stays"):
        copy.deepcopy(classifier).push_to_hub(
            REPO, token="hf_good", dtype="float16", card=ModelCard(summary="Mine, too.")
        )


def test_a_public_repository_is_not_pushed_to_as_a_private_one(published, classifier):
    before = published.files(REPO)
    with pytest.raises(HubError, match="is public"):
        copy.deepcopy(classifier).push_to_hub(REPO, private=True, token="hf_good", dtype="float16")
    assert published.files(REPO) == before


@pytest.mark.parametrize("name", ["stripes", "", None, 3, Path(REPO), "../x", "org/name@v1"])
def test_what_is_no_name_of_a_repository_is_refused_before_anything_is_asked(hub, classifier, name):
    with pytest.raises(InputError, match=r"repo_id is .*; give 'org/name'"):
        copy.deepcopy(classifier).push_to_hub(name, token="hf_good")
    assert hub.requests == []


def test_a_model_of_another_kind_is_not_downloaded(hub, files):
    hub.add(REPO, files | {"config.json": b'{"model_type": "vit"}'})
    with pytest.raises(ModelFileError, match=rf"{REPO} on the Hub .*not a model of diffmic"):
        load()
    assert not [r for r in asked_for_files(hub) if "safetensors" in r.path]


def test_a_damaged_download_says_what_to_delete(published, cache):
    load()
    (weights,) = cache.rglob("model.safetensors")
    weights.resolve().write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"Delete .*blobs") as raised:
        load()
    Path(re.search("Delete '([^']+)'", str(raised.value))[1]).unlink()
    assert load().classes_.tolist() == [0, 1, 2]


def test_nothing_of_this_machine_is_published(published, tmp_path):
    path = tmp_path / "own.pth"
    parameters = small(backbone="test_resnet", pretrained=False, max_epochs=1)
    classifier = DiffMICClassifier(**parameters).fit(*stripes(30)).set_params(pretrained=path)
    classifier.push_to_hub(REPO, token="hf_good")
    for name in ("config.json", "README.md"):
        text = published.files(REPO)[name].decode()
        for place in (path.parent, Path.home(), Path.cwd()):
            assert str(place) not in text


def test_the_command_gets_a_model_checks_it_and_copies_it(published, tmp_path):
    run = CliRunner().invoke(app, ["models", "get", REPO])
    assert run.exit_code == 0, run.output
    cached = Path(run.stdout.strip())
    assert (cached / "model.safetensors").is_file()
    run = CliRunner().invoke(app, ["models", "get", REPO, "--out", str(tmp_path / "mine")])
    assert Path(run.stdout.strip()) == tmp_path / "mine"
    expected = load().predict_proba(stripes(3)[0])
    found = load(tmp_path / "mine").predict_proba(stripes(3)[0])
    assert (found == expected).all()
    run = CliRunner().invoke(app, ["models", "get", REPO, "--out", str(tmp_path / "mine")])
    assert run.exit_code == 1
    assert "holds a model already" in run.stderr


def test_the_command_refuses_weights_that_do_not_fit_the_configuration(hub, files, tmp_path):
    weights = files["model.safetensors"]
    hub.add(REPO, files | {"model.safetensors": weights[:-1] + bytes([weights[-1] ^ 1])})
    run = CliRunner().invoke(app, ["models", "get", REPO, "--out", str(tmp_path / "mine")])
    assert run.exit_code == 1
    assert "checksum" in run.stderr
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("diffmic-v2-busi", "No published weights"),
        ("org/missing", "no repository org/missing"),
        ("nonsense", "no saved model"),
    ],
)
def test_the_command_says_why_there_is_no_such_model(hub, name, said):
    run = CliRunner().invoke(app, ["models", "get", name])
    assert run.exit_code == 1
    assert said in run.stderr
    assert run.stdout == ""
