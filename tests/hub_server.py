"""A small Hub on loopback that speaks as much of the Hub's HTTP API as `huggingface_hub` uses for models.

What it answers was read off the client's source, versions 1.5 to 2.4. Repositories live in memory. It has no Xet
storage: clients are run with `HF_HUB_DISABLE_XET=1` and send large files by LFS, in one part or, above
`multipart_bytes`, in several. There are no pull requests, tags or deletions of repositories.
"""

import base64
import hashlib
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path

from hub_requests import HubRequestHandler, git_oid, is_large


LICENSED = "---\nlicense: mit\n---\n"  # a README.md for an image-LLM, of which others may be made
GIT_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"  # stands in every fresh repository


@dataclass(frozen=True)
class Commit:
    """All files of a repository at one point: path to (contents, whether they came by LFS)."""

    files: dict[str, tuple[bytes, bool]]
    title: str
    parent: str | None

    @property
    def sha(self) -> str:
        lines = [self.title, str(self.parent)]
        lines += [f"{path} {git_oid(data)}" for path, (data, _) in sorted(self.files.items())]
        return hashlib.sha1("\n".join(lines).encode()).hexdigest()


@dataclass
class Repository:
    name: str
    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    def add_commit(self, files: dict[str, tuple[bytes, bool]], title: str, branch: str = "main") -> str:
        commit = Commit(files, title, self.branches.get(branch))
        self.branches[branch] = commit.sha
        self.commits[commit.sha] = commit
        return commit.sha

    def find(self, revision: str) -> str | None:
        """The commit that a branch or a hash means."""
        return self.branches.get(revision, revision if revision in self.commits else None)


class HubServer:
    """
    A context manager: `with HubServer() as hub`.

    `hub.token` may write to `hub.writable`, all of `hub.namespaces` unless a test changes it; `hub.read_token` may
    only read; any other is wrong. What went over the line is kept: `hub.requests`, `hub.unknown_requests` that got no
    answer, and `hub.uploaded_bytes` of LFS contents including those of broken uploads.
    """

    token = "hf_may_write"
    read_token = "hf_may_read"
    namespaces = ("me", "org")  # the first is the user
    writable = namespaces

    def __init__(self, multipart_bytes: int = 1 << 40):
        self.multipart_bytes = multipart_bytes
        self.lock = threading.RLock()
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.unknown_requests: list[tuple[str, str]] = []
        self.uploaded_bytes = 0
        self.downloaded_bytes = 0
        self.is_down = False
        self._bytes_to_cut: int | None = None
        self._stays_down = False

    def __enter__(self) -> "HubServer":
        self._server = _Server(("127.0.0.1", 0), HubRequestHandler)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add_model(self, name: str, folder: str | Path, *, revision: str = "main", private: bool = False) -> str:
        """Adds the files of a folder as a commit, without the client; returns its hash."""
        folder = Path(folder)
        with self.lock:
            repository = self.repositories.get(name) or self.create(name, private)
            files = dict(repository.commits[repository.branches.get(revision, repository.branches["main"])].files)
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    data, key = path.read_bytes(), path.relative_to(folder).as_posix()
                    files[key] = (data, is_large(key, data[:512], len(data)))
            return repository.add_commit(files, "Add model", revision)

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a commit, without the `.gitattributes` that every repository starts with."""
        repository = self.repositories[name]
        files = repository.commits[repository.find(revision)].files
        return {path: data for path, (data, _) in files.items() if path != ".gitattributes"}

    def commits(self, name: str, revision: str = "main") -> list[str]:
        """Titles from the newest to the oldest."""
        repository, titles = self.repositories[name], []
        commit = repository.commits.get(repository.find(revision))
        while commit is not None:
            titles.append(commit.title)
            commit = repository.commits.get(commit.parent)
        return titles

    def cut_after(self, num_bytes: int, *, stays_down: bool = True) -> None:
        """
        Uploads and downloads of files break off when so many bytes have gone over the line from now on, in one
        transfer or several. Then every connection is refused until `hub.restore()`; with `stays_down=False` only
        this one breaks.
        """
        with self.lock:
            self._bytes_to_cut, self._stays_down = num_bytes, stays_down

    def restore(self) -> None:
        with self.lock:
            self._bytes_to_cut, self.is_down = None, False

    def allowed_bytes(self, wanted: int) -> int:
        """How many of the next bytes may go over the line; fewer than wanted means: then break the connection."""
        with self.lock:
            if self._bytes_to_cut is None:
                return wanted
            allowed = min(wanted, self._bytes_to_cut)
            self._bytes_to_cut -= allowed
            if allowed < wanted:
                self._bytes_to_cut, self.is_down = None, self._stays_down
            return allowed

    def create(self, name: str, private: bool = False) -> Repository:
        repository = self.repositories[name] = Repository(name, private)
        repository.add_commit({".gitattributes": (GIT_ATTRIBUTES, False)}, "initial commit")
        return repository

    def commit(self, repository: Repository, branch: str, lines: list[dict]) -> str:
        """
        Applies the operations of a commit, all or none.

        Raises:
            `ValueError`: with what the Hub would say.
        """
        files = dict(repository.commits[repository.branches[branch]].files)
        title = ""
        for line in lines:
            key, value = line["key"], line["value"]
            path = value.get("path", "")
            if path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"the path {path!r} is not allowed")
            if key == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, repository.branches[branch]):
                    raise ValueError("a commit has happened since")
            elif key == "file":
                data = base64.b64decode(value["content"])
                if is_large(path, data[:512], len(data)):
                    raise ValueError(f"{path} must be sent by LFS")
                files[path] = (data, False)
            elif key == "lfsFile":
                if value["oid"] not in self.large_files:
                    raise ValueError(f"the LFS object {value['oid']} of {path} was never uploaded")
                files[path] = (self.large_files[value["oid"]], True)
            elif key == "deletedFile":
                if files.pop(path, None) is None:
                    raise ValueError("A file with this name doesn't exist")
            elif key == "deletedFolder":
                files = {name: file for name, file in files.items() if not name.startswith(path.rstrip("/") + "/")}
            else:
                raise ValueError(f"unknown operation {key!r}")
        return repository.add_commit(files, title, branch)

    def environment(self, home: str | Path, **changes: str) -> dict[str, str]:
        """Variables for a subprocess whose Hub is this one, with an empty cache under `home`."""
        without = ("HF_HUB_CACHE", "HF_XET_CACHE", "HF_TOKEN_PATH", "TRANSFORMERS_OFFLINE", "HF_MODULES_CACHE")
        kept = {name: value for name, value in os.environ.items() if name not in without}
        hub = {"HF_ENDPOINT": self.url, "HF_TOKEN": self.token, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
        return {**kept, **hub, **quiet, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **changes}

    def run(
        self, code: str, home: str | Path, *arguments: str, env: dict[str, str] | None = None, python=sys.executable
    ) -> subprocess.CompletedProcess:
        """Runs Python code in a process of its own, since `huggingface_hub` reads its endpoint when it is imported."""
        return subprocess.run(
            [str(python), "-c", code, *map(str, arguments)],
            env=self.environment(home, **(env or {})),
            capture_output=True,
            text=True,
            timeout=300,
        )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: HubServer

    def handle_error(self, request, client_address) -> None:
        """A client may leave in the middle, as one does whose test has seen enough."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
