"""A Hugging Face Hub inside the process of the tests, for the real client of ``huggingface_hub``.

It answers what the client (seen: 2.4.0) asks to download and to upload models; the rest gets 501,
and stands in `HubServer.unknown`. Uploads go without Xet, whose protocol a compiled library hides:
large files travel by Git LFS.
"""

import base64
import hashlib
import json
import os
import re
import runpy
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest

HERE = "127.0.0.1"
USER = "tester"
REPO = r"(?P<repo_id>[\w.-]+/[\w.-]+)"
REVISION = r"(?P<revision>[^/?]+)"
ROUTES = {
    rf"(GET|HEAD) /{REPO}/resolve/{REVISION}/(?P<path>[^?]+)": "_file",
    rf"GET /api/models/{REPO}(/revision/{REVISION})?": "_info",
    rf"GET /api/models/{REPO}/tree/{REVISION}\?recursive=true&expand=false": "_tree",
    r"GET /api/whoami-v2": "_whoami",
    r"POST /api/repos/create": "_create",
    r"POST /api/validate-yaml": "_validate_card",
    rf"POST /api/models/{REPO}/preupload/{REVISION}(?P<pr>\?create_pr=1)?": "_preupload",
    rf"POST /{REPO}\.git/info/lfs/objects/batch": "_batch",
    rf"POST /api/models/{REPO}/commit/{REVISION}(?P<pr>\?create_pr=1)?": "_commit",
}


@dataclass(frozen=True)
class Request:
    """What was asked; the case of the names of headers does not matter."""

    method: str
    path: str
    headers: Message
    body: bytes

    @property
    def token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None


@dataclass
class Response:
    """What is answered; ``cut`` is where the connection ends, if before the content does."""

    status: int
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


class Refusal(Exception):
    """Tells why not: the client chooses its exception by the code."""

    def __init__(self, status: int, code: str | None, message: str, **headers: str) -> None:
        self.response = as_json({"error": message}, status)
        self.response.headers |= headers | {"X-Error-Message": message}
        if code:
            self.response.headers["X-Error-Code"] = code


@dataclass(frozen=True)
class Commit:
    """All files of a repository at one time."""

    id: str
    parent: str | None
    message: str
    files: dict[str, bytes]


@dataclass
class Repository:
    """Commits, oldest first, and what names them: ``main``, tags and pull requests."""

    private: bool
    gated: bool
    commits: list[Commit] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)

    def find(self, revision: str) -> Commit | None:
        sha = self.refs.get(revision, revision)
        return next((commit for commit in self.commits if commit.id == sha), None)

    def grow(self, ref: str, parent: Commit | None, message: str, files: dict[str, bytes]) -> str:
        """Add a commit, with a name like no other."""
        sha = hashlib.sha1(f"{id(self)} {len(self.commits)} {message}".encode()).hexdigest()
        self.commits.append(Commit(sha, parent.id if parent else None, message, files))
        self.refs[ref] = sha
        return sha


def as_json(value: Any, status: int = 200) -> Response:
    return Response(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Hands requests on. HTTP/1.0, the default, keeps no connection: a closed server is gone."""

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        response = self.server.answer(Request(self.command, self.path, self.headers, body))
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.content[: response.cut])

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def log_message(self, *_: Any) -> None:
        """Stay silent: what was asked is in `HubServer.requests`."""


class _Door(ThreadingHTTPServer):
    """An address on this machine."""

    request_queue_size = 64  # with the usual 5, a busy machine lets clients wait for a second

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        super().__init__((HERE, 0), _Handler)
        self.answer = answer
        self.url = f"http://{HERE}:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's looks its own name up


class HubServer(AbstractContextManager):
    """Repositories of models, in memory.

    ``tokens`` may see and change everything; ``strangers`` are tokens of users who may see what is
    public, and open pull requests. Files of more than ``lfs_above`` bytes are fetched from, and
    left at, a second address, which refuses who shows it a token. ``requests`` is all that was
    asked at both; in ``unknown``, which a test should find empty, is what had no answer.
    """

    def __init__(self, *, lfs_above: int = 10_000) -> None:
        self.lfs_above = lfs_above
        self.tokens = {"hf_good"}
        self.strangers = {"hf_stranger"}
        self.requests: list[Request] = []
        self.unknown: list[str] = []
        self._repositories: dict[str, Repository] = {}
        self._large: dict[str, bytes] = {}  # by SHA-256
        self._drops: list[int] = []
        self._lock = threading.RLock()
        self._hub, self._store = _Door(self._answer), _Door(self._answer_of_store)
        self.url = self._hub.url

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for door in (self._hub, self._store):
            door.shutdown()
            door.server_close()

    def add(
        self,
        repo_id: str,
        files: dict[str, bytes],
        message: str = "Add files",
        *,
        private: bool = False,
        gated: bool = False,
    ) -> str:
        """Add or change files in ``main``, and return the commit.

        A repository that is new may be private, or gated: all see it, but not its files.
        """
        with self._lock:
            repository = self._repositories.setdefault(repo_id, Repository(private, gated))
            parent = repository.find("main")
            kept = parent.files if parent else {}
            return repository.grow("main", parent, message, kept | files)

    def tag(self, repo_id: str, name: str, revision: str = "main") -> None:
        repository = self._repositories[repo_id]
        repository.refs[name] = repository.find(revision).id

    def commits(self, repo_id: str) -> list[Commit]:
        """Return all commits, those of pull requests too, oldest first."""
        return list(self._repositories[repo_id].commits)

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        return dict(self._repositories[repo_id].find(revision).files)

    def drop_after(self, n_bytes: int) -> None:
        """End the connection after so many bytes at the next GET of a file that has more."""
        self._drops.append(n_bytes)

    def _is_large(self, size: int) -> bool:
        return size > self.lfs_above

    def _oid(self, content: bytes) -> str:
        """Name of a file by its content: Git's, or that of Git LFS for a large one."""
        if self._is_large(len(content)):
            return sha256(content)
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def _answer(self, request: Request) -> Response:
        self.requests.append(request)
        try:
            if request.token and request.token not in self.tokens | self.strangers:
                raise Refusal(401, None, "Invalid credentials in Authorization header")
            for pattern, route in ROUTES.items():
                if found := re.fullmatch(pattern, f"{request.method} {request.path}"):
                    parts = {k: unquote(v) for k, v in found.groupdict().items() if v}
                    with self._lock:
                        return getattr(self, route)(request, **parts)
        except Refusal as refusal:
            return refusal.response
        return self._no_answer(request)

    def _answer_of_store(self, request: Request) -> Response:
        """Large files by their SHA-256. As with signed addresses: who knows it may come in."""
        self.requests.append(request)
        if request.token:
            return Response(400, b"Only one auth mechanism allowed")
        oid = request.path[1:]
        if request.method == "GET" and oid in self._large:
            return self._content(request, self._large[oid], {})
        if request.method == "PUT" and oid == sha256(request.body):
            self._large[oid] = request.body
            return Response(200)
        return self._no_answer(request)

    def _no_answer(self, request: Request) -> Response:
        asked = f"{request.method} {request.path}"
        self.unknown.append(asked)
        return Response(501, f"This server does not know {asked}".encode())

    def _content(self, request: Request, content: bytes, headers: dict[str, str]) -> Response:
        """A file, or the part of it that is asked for, or less if a drop is due."""
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        part = content[int(asked[1]) :] if asked else content
        headers |= {"Accept-Ranges": "bytes", "ETag": f'"{self._oid(content)}"'}
        if asked:
            size = len(content)
            headers["Content-Range"] = f"bytes {asked[1]}-{size - 1}/{size}"
        with self._lock:
            due = request.method == "GET" and self._drops and self._drops[0] < len(part)
            cut = self._drops.pop(0) if due else None
        return Response(206 if asked else 200, part, headers, cut)

    def _find(self, request: Request, repo_id: str, revision: str) -> tuple[Repository, Commit]:
        """A repository that one may see, and one of its commits."""
        repository = self._repositories.get(repo_id)
        if repository is None or (repository.private and request.token not in self.tokens):
            raise Refusal(404 if request.token else 401, "RepoNotFound", "Repository not found")
        commit = repository.find(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    def _check_may_write(self, request: Request, pr: str = "") -> None:
        if request.token is None:
            # The client takes any 401 of a repository for this code, but only behind https.
            raise Refusal(401, "RepoNotFound", "Invalid username or password.")
        if request.token not in self.tokens and not pr:
            raise Refusal(403, None, "Forbidden: you have no right to change this repository.")

    def _file(self, request: Request, repo_id: str, revision: str, path: str) -> Response:
        repository, commit = self._find(request, repo_id, revision)
        if repository.gated and request.token not in self.tokens:
            status = 403 if request.token else 401
            raise Refusal(status, "GatedRepo", f"Access to model {repo_id} is restricted.")
        headers = {"X-Repo-Commit": commit.id}
        if path not in commit.files:
            raise Refusal(404, "EntryNotFound", "Entry not found", **headers)
        content = commit.files[path]
        if not self._is_large(len(content)):
            return self._content(request, content, headers)
        oid, size = self._oid(content), str(len(content))
        self._large[oid] = content
        headers |= {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": size}
        return Response(302, b"", {**headers, "Location": f"{self._store.url}/{oid}"})

    def _info(self, request: Request, repo_id: str, revision: str = "main") -> Response:
        repository, commit = self._find(request, repo_id, revision)
        siblings = [{"rfilename": path} for path in commit.files]
        gated = "auto" if repository.gated else False
        told = {"id": repo_id, "sha": commit.id, "private": repository.private, "gated": gated}
        return as_json({**told, "siblings": siblings})

    def _tree(self, request: Request, repo_id: str, revision: str) -> Response:
        entries = []
        for path, content in self._find(request, repo_id, revision)[1].files.items():
            oid, size = self._oid(content), len(content)
            entry = {"type": "file", "path": path, "size": size, "oid": oid}
            if self._is_large(size):
                entry["lfs"] = {"oid": oid, "size": size, "pointerSize": 130}
            entries.append(entry)
        return as_json(entries)

    def _whoami(self, request: Request) -> Response:
        if request.token is None:
            raise Refusal(401, None, "Invalid username or password.")
        return as_json({"type": "user", "name": USER, "orgs": []})

    def _create(self, request: Request) -> Response:
        asked = json.loads(request.body)
        if asked.get("type", "model") != "model":
            return self._no_answer(request)
        self._check_may_write(request)
        repo_id = f"{asked['organization'] or USER}/{asked['name']}"
        url = f"{self.url}/{repo_id}"
        if repo_id in self._repositories:
            return as_json({"url": url, "error": "You already created this model repo"}, 409)
        attributes = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
        self.add(
            repo_id, attributes, "initial commit", private=asked.get("visibility") == "private"
        )
        return as_json({"url": url, "name": repo_id})

    def _validate_card(self, request: Request) -> Response:
        """All cards pass: to judge them takes the real Hub."""
        return as_json({"errors": [], "warnings": []})

    def _preupload(self, request: Request, repo_id: str, revision: str, pr: str = "") -> Response:
        """Which files go by LFS, and which are there already: those the client leaves out."""
        _, commit = self._find(request, repo_id, revision)
        self._check_may_write(request, pr)
        files = []
        for asked in json.loads(request.body)["files"]:
            mode = "lfs" if self._is_large(asked["size"]) else "regular"
            told = {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False}
            if asked["path"] in commit.files:
                told["oid"] = self._oid(commit.files[asked["path"]])
            files.append(told)
        return as_json({"files": files})

    def _batch(self, request: Request, repo_id: str) -> Response:
        """Where to leave large files, except for those that are there."""
        self._find(request, repo_id, "main")
        self._check_may_write(request, pr="perhaps")
        objects = []
        for asked in json.loads(request.body)["objects"]:
            told = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self._large:
                told["actions"] = {"upload": {"href": f"{self._store.url}/{asked['oid']}"}}
            objects.append(told)
        return as_json({"transfer": "basic", "objects": objects})

    def _commit(self, request: Request, repo_id: str, revision: str, pr: str = "") -> Response:
        repository, parent = self._find(request, repo_id, revision)
        self._check_may_write(request, pr)
        if not re.fullmatch(r"main|refs/pr/\d+", revision):
            raise Refusal(404, "RevisionNotFound", f"{revision} is not a branch")
        header, *operations = [json.loads(line) for line in request.body.splitlines()]
        if header["value"].get("parentCommit", parent.id) != parent.id:
            raise Refusal(412, None, "A commit has happened since. Please refresh and try again.")
        files = dict(parent.files)
        for operation in operations:
            kind, value = operation["key"], operation["value"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile" and value["oid"] in self._large:
                files[value["path"]] = self._large[value["oid"]]
            elif kind == "deletedFile" and value["path"] in files:
                del files[value["path"]]
            else:
                return self._no_answer(request)
        number = 1 + sum(ref.startswith("refs/pr/") for ref in repository.refs)
        message = f"{header['value']['summary']}\n\n{header['value']['description']}".strip()
        sha = repository.grow(f"refs/pr/{number}" if pr else revision, parent, message, files)
        url = f"{self.url}/{repo_id}"
        pull_request = {"pullRequestUrl": f"{url}/discussions/{number}"} if pr else {}
        return as_json({"commitUrl": f"{url}/commit/{sha}", "commitOid": sha, **pull_request})


def use(monkeypatch: pytest.MonkeyPatch, server: HubServer, cache_dir: Path) -> None:
    """Lead ``huggingface_hub`` to a server and a cache of its own, and away from all else.

    The user's tokens and settings do not count, pauses between attempts are skipped, and Python
    reaches no other machine. Child processes find the server too, but could go elsewhere.
    """
    from huggingface_hub import constants, file_download, hf_api
    from huggingface_hub.utils import _http

    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_OFFLINE")):
            monkeypatch.delenv(name)
    for name, value in {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(cache_dir),
        "HF_HUB_CACHE": str(cache_dir),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "no_proxy": "*",
    }.items():
        monkeypatch.setenv(name, value)
    # The client reads the environment once, when it is imported: here it does so again, for all
    # of its modules, as some copy what they need.
    old, new = dict(vars(constants)), runpy.run_path(constants.__file__)
    for module in [m for name, m in sys.modules.items() if name.startswith("huggingface_hub.")]:
        for name in new.keys() & vars(module).keys():
            if name.isupper() and vars(module)[name] is old[name]:
                monkeypatch.setattr(module, name, new[name])
    monkeypatch.setattr(hf_api.api, "endpoint", server.url)
    monkeypatch.setattr(_http, "_GLOBAL_CLIENT", None)
    # A download that broke off goes on after the last whole chunk: the client's are of 10 MB.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    impatient = SimpleNamespace(**(vars(time) | {"sleep": lambda seconds: None}))
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", impatient)
    _stay_here(monkeypatch)


def _stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python look up and connect to this machine only.

    What it raises else is none of the errors of broken networks, which clients get over.
    """

    def only_here(function: Callable[..., Any], host_of: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **options: Any) -> Any:
            if (host := host_of(*arguments, **options)) != HERE:
                raise RuntimeError(f"A test wanted to reach {host}.")
            return function(*arguments, **options)

        return guarded

    def host_of_address(connection: socket.socket, address: Any) -> Any:
        return address[0] if connection.family in (socket.AF_INET, socket.AF_INET6) else HERE

    find = only_here(socket.getaddrinfo, lambda host, *_, **__: host)
    monkeypatch.setattr(socket, "getaddrinfo", find)
    for name in ("connect", "connect_ex"):
        real = getattr(socket.socket, name)
        monkeypatch.setattr(socket.socket, name, only_here(real, host_of_address))
