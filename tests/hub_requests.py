"""The requests that `hub_server.py` answers: who may do what, and the form of the answers."""

import base64
import hashlib
import io
import json
import re
import socket
import struct
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


class Refused(Exception):
    """An answer that is an error: status, the Hub's code for it, what it says."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        self.status, self.message, self.code, self.headers = status, message, code, headers


class HubRequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.hub = self.server.hub

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        if self.hub.is_down:
            return self._break_connection()
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.hub.requests.append((self.command, url.path))
        try:
            self.body = self._read_body(counted=self.command == "PUT")
        except ConnectionError:
            return self._break_connection()
        try:
            for method, pattern, answer in _ROUTES:
                match = re.fullmatch(pattern, url.path)
                if match and self.command in method.split():
                    self._check_token()
                    return answer(self, **{name: unquote(text or "") for name, text in match.groupdict().items()})
            if url.path not in _NO_ANSWER:
                self.hub.unknown_requests.append((self.command, url.path))
            raise Refused(404, f"this Hub does not know {self.command} {url.path}")
        except Refused as error:
            headers = {"X-Error-Message": error.message, **error.headers}
            if error.code:
                headers["X-Error-Code"] = error.code
            self._send(json.dumps({"error": error.message}).encode(), error.status, headers)

    def _read_body(self, counted: bool) -> bytes:
        """
        The whole body; that of a file (`counted`) may break off. What comes after the break is read and thrown away: a
        client that is still writing when the connection ends does not always learn why it ended, and clients before
        huggingface_hub 2 try again after a reset only.
        """
        parts, broken = [], False
        chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        left = 0 if chunked else int(self.headers.get("Content-Length", 0))
        while left or chunked:
            if not left:
                left = int(self.rfile.readline().split(b";")[0] or b"0", 16)
                if not left:
                    self.rfile.readline()
                    break
            data = self.rfile.read(min(left, 1 << 16))
            left -= len(data)
            if chunked and not left:
                self.rfile.readline()
            if counted and not broken:
                allowed = self.hub.allowed_bytes(len(data))
                with self.hub.lock:
                    self.hub.uploaded_bytes += allowed
                broken = allowed < len(data)
            parts.append(data)
        if broken:
            raise ConnectionError
        return b"".join(parts)

    def _break_connection(self) -> None:
        """As a lost connection looks: a reset, not an answer and not a polite end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.wfile = io.BytesIO()  # for what the base class still flushes

    def _send(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _send_json(self, value, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status)

    # Who may do what.

    @property
    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _check_token(self) -> None:
        if self._token not in ("", self.hub.token, self.hub.read_token):
            raise Refused(401, "Invalid credentials in Authorization header")

    def _check_may_write(self, namespace: str) -> None:
        if not self._token:
            raise Refused(401, "Invalid username or password.")
        if self._token != self.hub.token or namespace not in self.hub.writable:
            raise Refused(403, f'You don\'t have the rights to create a model under the namespace "{namespace}"')

    def _repository(self, name: str, to_write: bool = False):
        repository = self.hub.repositories.get(name)
        # Someone without a token is not told whether a private repository is there.
        if repository is None or (repository.private and not self._token):
            raise Refused(404 if self._token else 401, "Repository not found", "RepoNotFound")
        if to_write:
            self._check_may_write(name.split("/")[0])
        return repository

    def _files(self, name: str, revision: str):
        repository = self._repository(name)
        sha = repository.find(revision or "main")
        if sha is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repository, sha, repository.commits[sha].files

    # Accounts and repositories.

    def whoami(self) -> None:
        if not self._token:
            raise Refused(401, "Invalid username or password.")
        user, *organizations = self.hub.namespaces
        role = "write" if self._token == self.hub.token else "read"
        token = {"displayName": "test", "role": role}
        organizations = [{"name": name, "type": "org", "roleInOrg": "write"} for name in organizations]
        self._send_json({"type": "user", "name": user, "orgs": organizations, "auth": {"accessToken": token}})

    def create(self) -> None:
        wanted = json.loads(self.body)
        name = f"{wanted['organization'] or self.hub.namespaces[0]}/{wanted['name']}"
        self._check_may_write(name.split("/")[0])
        url = f"{self.hub.url}/{name}"
        with self.hub.lock:
            if name in self.hub.repositories:
                return self._send_json({"error": "You already created this model repo", "url": url}, 409)
            self.hub.create(name, wanted.get("private") or wanted.get("visibility") == "private")
        self._send_json({"url": url, "name": name})

    def branch(self, name: str, branch: str) -> None:
        repository = self._repository(name, to_write=True)
        with self.hub.lock:
            if branch in repository.branches:
                raise Refused(409, f"Reference refs/heads/{branch} already exists")
            start = repository.find(json.loads(self.body or b"{}").get("startingPoint", "main"))
            if start is None:
                raise Refused(404, "Invalid rev id", "RevisionNotFound")
            repository.branches[branch] = start
        self._send_json({})

    def refs(self, name: str) -> None:
        branches = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": sha}
            for branch, sha in self._repository(name).branches.items()
        ]
        self._send_json({"branches": branches, "converts": [], "tags": []})

    def info(self, name: str, revision: str = "") -> None:
        repository, sha, files = self._files(name, revision)
        siblings = [_about_file(path, *file) for path, file in files.items()]
        card = _front_matter(files["README.md"][0].decode()) if "README.md" in files else {}
        self._send_json(
            {
                "id": name,
                "sha": sha,
                "private": repository.private,
                "tags": card.get("tags") or [],
                "pipeline_tag": card.get("pipeline_tag"),
                "library_name": card.get("library_name"),
                "cardData": card,
                "siblings": [
                    {"rfilename": file["path"], "size": file["size"], "blobId": file["oid"]}
                    | ({"lfs": file["lfs"] | {"sha256": file["lfs"]["oid"]}} if "lfs" in file else {})
                    for file in siblings
                ],
            }
        )

    def tree(self, name: str, revision: str, folder: str = "") -> None:
        _, sha, files = self._files(name, revision)
        prefix = folder.strip("/") + "/" if folder else ""
        inside = [path for path in files if path.startswith(prefix)]
        if prefix and not inside:
            raise Refused(404, f"{folder} does not exist", "EntryNotFound", **{"X-Repo-Commit": sha})
        entries = {}
        for path in inside:
            parents = path[len(prefix) :].split("/")[:-1]
            for depth in range(1, len(parents) + 1):
                folder = prefix + "/".join(parents[:depth])
                entries[folder] = {"type": "directory", "path": folder, "oid": sha, "size": 0}
            entries[path] = _about_file(path, *files[path])
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        self._send_json([entry for path, entry in entries.items() if recursive or "/" not in path[len(prefix) :]])

    def paths_info(self, name: str, revision: str) -> None:
        _, _, files = self._files(name, revision)
        paths = parse_qs(self.body.decode()).get("paths", [])
        self._send_json([_about_file(path, *files[path]) for path in paths if path in files])

    # Sending files.

    def validate_yaml(self) -> None:
        try:
            fields = _front_matter(json.loads(self.body)["content"])
        except yaml.YAMLError as error:
            return self._send_json({"errors": [{"message": f"YAML metadata error: {error}"}], "warnings": []}, 400)
        warnings = [] if fields else [{"message": "empty or missing yaml metadata in repo card"}]
        self._send_json({"errors": [], "warnings": warnings})

    def preupload(self, name: str, revision: str) -> None:
        self._repository(name, to_write=True)
        _, _, files = self._files(name, revision)
        answer = []
        for wanted in json.loads(self.body)["files"]:
            path = wanted["path"]
            large = is_large(path, base64.b64decode(wanted["sample"]), wanted["size"])
            known = _about_file(path, *files[path]) if path in files else {}
            answer.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": known.get("lfs", known).get("oid"),
                }
            )
        self._send_json({"files": answer})

    def lfs_batch(self, name: str) -> None:
        """Says where the contents that are not known yet are to go; for known ones there is nothing to do."""
        self._repository(name, to_write=True)
        wanted = json.loads(self.body)
        objects = []
        for file in wanted["objects"]:
            oid, size = file["oid"], file["size"]
            answer = {"oid": oid, "size": size}
            if oid not in self.hub.large_files:
                part = self.hub.multipart_bytes
                upload = {"href": f"{self.hub.url}/lfs/{oid}"}
                if size > part and "multipart" in wanted["transfers"]:
                    parts = {str(n + 1): f"{upload['href']}/{n + 1}" for n in range(-(-size // part))}
                    upload = {"href": f"{upload['href']}/complete", "header": {"chunk_size": str(part), **parts}}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.url}/{name}.git/lfs/verify"}}
            objects.append(answer)
        self._send_json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        self._keep(oid, self.body)
        self._send(b"")

    def lfs_part(self, oid: str, number: str) -> None:
        self.hub.parts[oid, int(number)] = self.body
        self._send(b"", headers={"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'})

    def lfs_complete(self, oid: str) -> None:
        numbers = [part["partNumber"] for part in json.loads(self.body)["parts"]]
        self._keep(oid, b"".join(self.hub.parts.pop((oid, number)) for number in numbers))
        self._send_json({})

    def lfs_verify(self, name: str) -> None:
        self._repository(name, to_write=True)
        wanted = json.loads(self.body)
        if len(self.hub.large_files.get(wanted["oid"], b"")) != wanted["size"]:
            raise Refused(404, "the object is not there or has another size")
        self._send_json({})

    def _keep(self, oid: str, data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != oid:
            raise Refused(400, "the contents do not have the hash that was announced")
        with self.hub.lock:
            self.hub.large_files[oid] = data

    def commit(self, name: str, revision: str) -> None:
        repository = self._repository(name, to_write=True)
        if "create_pr" in self.query:
            raise Refused(400, "this Hub has no pull requests")
        with self.hub.lock:
            if revision not in repository.branches:
                raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            try:
                sha = self.hub.commit(repository, revision, [json.loads(line) for line in self.body.splitlines()])
            except ValueError as error:
                raise Refused(400, str(error)) from error
        self._send_json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"})

    # Getting files.

    def resolve(self, name: str, revision: str, path: str) -> None:
        _, sha, files = self._files(name, revision)
        if path not in files:
            raise Refused(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": sha})
        data, large = files[path]
        about = _about_file(path, data, large)
        etag = about["lfs"]["oid"] if large else about["oid"]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if large:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
        status, size = 200, len(data)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
            if start >= size:
                raise Refused(416, "out of range", **{"Content-Range": f"bytes */{size}"})
            status, data = 206, data[start : end + 1]
            headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data)), "Content-Type": "binary/octet-stream"}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        for start in range(0, len(data), 1 << 16):
            piece = data[start : start + (1 << 16)]
            allowed = self.hub.allowed_bytes(len(piece))
            self.wfile.write(piece[:allowed])
            with self.hub.lock:
                self.hub.downloaded_bytes += allowed
            if allowed < len(piece):
                # A polite end, so that what was sent arrives: the client sees that it is less than announced.
                self.close_connection = True
                return


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(path: str, sample: bytes, size: int) -> bool:
    """Whether the Hub wants a file by LFS: weights by their suffix, all that is binary, all that is big."""
    by_name = re.search(r"\.(safetensors|bin|pt|pth|ckpt|pkl|pickle|msgpack|h5|onnx)$", path) is not None
    return by_name or b"\0" in sample or size > 10_000_000


def _about_file(path: str, data: bytes, large: bool) -> dict:
    about = {"type": "file", "path": path, "size": len(data)}
    if not large:
        return {**about, "oid": git_oid(data)}
    oid = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n".encode()
    return {**about, "oid": git_oid(pointer), "lfs": {"oid": oid, "size": len(data), "pointerSize": len(pointer)}}


def _front_matter(text: str) -> dict:
    match = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", text, re.DOTALL)
    fields = yaml.safe_load(match[1]) if match else None
    if match and not isinstance(fields, dict):
        raise yaml.YAMLError("the metadata is no mapping")
    return fields or {}


_NO_ANSWER = ("/api/agent-harnesses",)  # the client asks for what it may put into its user agent, and does without
_NAME = r"(?P<name>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>[^/]+)"
_ROUTES = [
    ("GET", r"/api/whoami-v2", HubRequestHandler.whoami),
    ("POST", r"/api/repos/create", HubRequestHandler.create),
    ("POST", r"/api/validate-yaml", HubRequestHandler.validate_yaml),
    ("GET", rf"/api/models/{_NAME}", HubRequestHandler.info),
    ("GET", rf"/api/models/{_NAME}/revision/{_REVISION}", HubRequestHandler.info),
    ("GET", rf"/api/models/{_NAME}/refs", HubRequestHandler.refs),
    ("POST", rf"/api/models/{_NAME}/branch/(?P<branch>[^/]+)", HubRequestHandler.branch),
    ("GET", rf"/api/models/{_NAME}/tree/{_REVISION}(/(?P<folder>.*))?", HubRequestHandler.tree),
    ("POST", rf"/api/models/{_NAME}/paths-info/{_REVISION}", HubRequestHandler.paths_info),
    ("POST", rf"/api/models/{_NAME}/preupload/{_REVISION}", HubRequestHandler.preupload),
    ("POST", rf"/api/models/{_NAME}/commit/{_REVISION}", HubRequestHandler.commit),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", HubRequestHandler.lfs_batch),
    ("POST", rf"/{_NAME}\.git/lfs/verify", HubRequestHandler.lfs_verify),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", HubRequestHandler.lfs_upload),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})/(?P<number>\d+)", HubRequestHandler.lfs_part),
    ("POST", r"/lfs/(?P<oid>[0-9a-f]{64})/complete", HubRequestHandler.lfs_complete),
    ("HEAD GET", rf"/{_NAME}/resolve/{_REVISION}/(?P<path>.+)", HubRequestHandler.resolve),
]
