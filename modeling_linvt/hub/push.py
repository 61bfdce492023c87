"""Sends a folder to the Hub in one commit or not at all, with one plain sentence for each error."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from linvt.checkpoints.safe_weights import PICKLES
from linvt.hub.lost_connection import HTTPError, connection_advice, http_error, lost_connection


FRESH_FILES = {".gitattributes"}  # what the Hub itself puts into a new repository

# What loading reads from a model's folder: such files of an earlier commit must not mix with those of a new one.
LOADED_SUFFIXES = (".jinja", ".json", ".py", ".safetensors")
LOADED_FOLDERS = (".", "adapter")


@dataclass(frozen=True)
class Destination:
    """
    Describes a place on the Hub to which a folder may be pushed.

    Args:
        repo_id (`str`): With its namespace.
        revision (`str`): The branch.
        repository_exists, branch_exists (`bool`): Whether they need not be made.
        held_files (`frozenset[str]`): What the branch holds, or will hold when it starts off the main one.
    """

    repo_id: str
    revision: str
    repository_exists: bool
    branch_exists: bool
    held_files: frozenset[str]

    def stale_files(self, files: dict[str, int]) -> tuple[str, ...]:
        """Lists the files that a commit of `files` deletes: loading would read them beside the new ones."""
        return tuple(
            path
            for path in sorted(self.held_files - files.keys())
            if path.endswith(LOADED_SUFFIXES) and str(PurePosixPath(path).parent) in LOADED_FOLDERS
        )


@dataclass(frozen=True)
class Pushed:
    """Describes a finished push: `files` maps paths to bytes, `commit` is its hash."""

    repo_id: str
    revision: str
    url: str
    commit: str
    files: dict[str, int]
    removed: tuple[str, ...]


def push_folder(
    folder: str | Path, repo_id: str, *, private: bool = False, revision: str | None = None, token: str | None = None
) -> Pushed:
    """
    Sends all files of a folder in one commit. Large files go up before it, and the Hub keeps them: after a lost
    connection the same call does not send them again.

    Args:
        folder (`str` or `Path`): Holds the files of a model, none of them a pickle.
        repo_id (`str`): Name on the Hub. Without a revision it must be new, or an empty repository such as an
            interrupted call leaves.
        private (`bool`, *optional*, defaults to `False`): Make a private repository. Otherwise it is as public as its
            namespace makes new ones.
        revision (`str`, *optional*): Branch to add a commit to; it starts off the main one if it is new.
        token (`str`, *optional*): Default: that of `hf auth login`, or `HF_TOKEN`.

    Raises:
        `ValueError`: if there is no token, the name is invalid or taken, or a file may not be sent.
        `PermissionError`: if the token is wrong or may not write there.
        `ConnectionError`: if the Hub cannot be reached. The same call goes on.
    """
    files = files_to_send(folder)
    destination = check_destination(repo_id, private=private, revision=revision, token=token)
    api = HfApi(token=token)
    repo_id, branch = destination.repo_id, destination.revision
    removed = destination.stale_files(files)
    with _plain_errors(api, repo_id):
        if not destination.repository_exists:
            # `None` leaves it to the namespace, whose new repositories may all be private.
            api.create_repo(repo_id, private=True if private else None, exist_ok=True)
        if not destination.branch_exists:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        # Not `upload_folder`, which makes several commits when it uses Xet (huggingface_hub 2.4).
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(path, Path(folder) / path) for path in files]
            + [CommitOperationDelete(path) for path in removed],
            commit_message="Update the model" if destination.held_files - FRESH_FILES else "Add the model",
            revision=branch,
        )
    url = f"{api.endpoint}/{repo_id}" + ("" if branch == "main" else f"/tree/{branch}")
    return Pushed(repo_id, branch, url, commit.oid, files, removed)


def files_to_send(folder: str | Path) -> dict[str, int]:
    """
    Lists the paths below a folder with their sizes in bytes, sorted.

    Raises:
        `ValueError`: if there are none, or one of them is a pickle.
    """
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    if not paths:
        raise ValueError(f"{folder} holds no files to push.")
    pickles = [str(path.relative_to(folder)) for path in paths if path.name.lower().endswith(PICKLES)]
    if pickles:
        raise ValueError(
            f"{', '.join(pickles)} in {folder}: pickles are not pushed, since they run code when they are read. Save "
            "weights as safetensors, or push an export, which leaves all else out."
        )
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}


def check_destination(
    repo_id: str, *, private: bool = False, revision: str | None = None, token: str | None = None
) -> Destination:
    """Asks the Hub, changing nothing, whether [`push_folder`] may go there; arguments and errors are the same."""
    validate_repo_id(repo_id)
    api = HfApi(token=token)
    with _plain_errors(api, repo_id):
        account = api.whoami()
        if "/" not in repo_id:
            repo_id = f"{account['name']}/{repo_id}"
        _check_rights(account, repo_id)
        try:
            info = api.model_info(repo_id)
        except RepositoryNotFoundError:
            return Destination(repo_id, revision or "main", False, revision in (None, "main"), frozenset())
        branch_exists = revision is None or any(
            branch.name == revision for branch in api.list_repo_refs(repo_id).branches
        )
        if revision is not None and branch_exists:
            info = api.model_info(repo_id, revision=revision)
    if private and not info.private:
        raise ValueError(
            f"{repo_id} is there already and is public: make it private on {api.endpoint}/{repo_id}/settings, or push "
            "to another name."
        )
    held_files = frozenset(file.rfilename for file in info.siblings)
    if revision is None and held_files - FRESH_FILES:
        raise ValueError(
            f"the name {repo_id} is taken: the repository holds {_some(held_files - FRESH_FILES)} already. Give "
            "another name, or --revision main to add a commit to it on purpose."
        )
    return Destination(repo_id, revision or "main", True, branch_exists, held_files)


def _check_rights(account: dict, repo_id: str) -> None:
    namespace = repo_id.split("/")[0]
    mine = [account["name"], *(organization["name"] for organization in account.get("orgs", []))]
    if namespace not in mine:
        raise PermissionError(
            f"the account {account['name']} of the token cannot write to {namespace}, only to {', '.join(mine)}."
        )
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PermissionError(
            f"the token of the account {account['name']} may only read. Make one that may write on "
            "https://huggingface.co/settings/tokens, then `hf auth login` or set HF_TOKEN."
        )


@contextmanager
def _plain_errors(api: HfApi, repo_id: str) -> Iterator[None]:
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise ValueError(
            "pushing needs a token: `hf auth login`, or set HF_TOKEN to one that may write (made on "
            "https://huggingface.co/settings/tokens)."
        ) from error
    except (HTTPError, RuntimeError) as error:  # a RuntimeError wraps what went wrong with one of several files
        answer, lost = http_error(error), lost_connection(error)
        if lost is not None:
            raise ConnectionError(lost) from error
        if not isinstance(answer, HfHubHTTPError):
            raise
        status, said = answer.response.status_code, answer.server_message or str(answer)
        if status == 401:
            raise PermissionError(
                f"{api.endpoint} does not accept the token ({said}). Log in with `hf auth login`, or correct "
                "HF_TOKEN, which comes before it."
            ) from error
        if status == 403:
            raise PermissionError(f"the token may not write to {repo_id}: {said}") from error
        raise ValueError(f"{api.endpoint} refuses to take {repo_id} (HTTP {status}): {said}") from error
    except OfflineModeIsEnabled:
        raise
    except ConnectionError as error:  # hf_xet, through which large files go by default, raises Python's own
        if "HTTP status client error" in str(error):
            raise PermissionError(f"{api.endpoint} refuses to take {repo_id}: {error}") from error
        raise ConnectionError(connection_advice(error)) from error


def _some(names: frozenset[str]) -> str:
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - 3} more files" if len(names) > 3 else "")
