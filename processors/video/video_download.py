"""Downloads http(s) URLs: completely, or with one clear error."""

import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import quote, urlsplit, urlunsplit


# Seconds that a server may take to answer, and to send more data.
URL_TIMEOUT_SECONDS = 30.0

# Some servers, Wikimedia's among them, refuse the name that urllib sends by default.
USER_AGENT = "linvt (video reader)"

# What stays as it is in a URL: what has a meaning there, and the % of what is quoted already.
_UNQUOTED = "%/:=&?~+!$,;'@()*[]"


def download(url: str, file: BinaryIO) -> None:
    """
    Downloads a URL into a file.

    Args:
        url (`str`): An http(s) address; spaces and letters outside ASCII need not be quoted.
        file (`BinaryIO`): Receives the content.

    Raises:
        `OSError`: if the server does not answer, refuses, or sends less than it promised: a file that is cut off may
            still be a video, but a shorter one. Its message is the reason.
    """
    with clear_url_errors(URL_TIMEOUT_SECONDS), open_url(url, URL_TIMEOUT_SECONDS) as response:
        num_promised = response.length  # None where the server does not say
        shutil.copyfileobj(response, file)
    # http.client takes the end of a connection for the end of the file.
    if num_promised is not None and file.tell() != num_promised:
        raise _failed(f"the connection ended after {file.tell()} of {num_promised} bytes")


def open_url(url: str, timeout_seconds: float | None) -> http.client.HTTPResponse:
    """
    Asks a server for a URL, of which nothing is read yet.

    Args:
        timeout_seconds (`float`, *optional*): How long the server may take to answer, and later to send more data;
            `None` for any time.

    Raises:
        As `urllib.request.urlopen` does; see [`clear_url_errors`].
    """
    request = urllib.request.Request(ascii_url(url), headers={"User-Agent": USER_AGENT})
    return urllib.request.urlopen(request, timeout=timeout_seconds)


@contextmanager
def clear_url_errors(timeout_seconds: float | None) -> Iterator[None]:
    """
    Names what goes wrong with a URL.

    Raises:
        `OSError`: for whatever `urllib` raises. Its message is the reason and what to do.
    """
    try:
        yield
    except urllib.error.HTTPError as error:
        raise _failed(f"the server answered {error.code} {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)  # URLError wraps what happened
        if isinstance(cause, TimeoutError):
            cause = f"no answer within {timeout_seconds:g} s"
        elif isinstance(cause, OSError):
            cause = cause.strerror or cause
        raise _failed(cause) from error


def ascii_url(url: str) -> str:
    """
    Returns a URL in ASCII: its host in IDNA, the rest percent-encoded where it is not yet.

    Raises:
        `ValueError`: if it is not a URL.
    """
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    host = host if host.isascii() else host.encode("idna").decode("ascii")
    path, query = (quote(part, _UNQUOTED) for part in (parts.path, parts.query))
    return urlunsplit((parts.scheme, user + at + host, path, query, ""))


def _failed(reason: object) -> OSError:
    return OSError(f"{reason}. Check the address and the connection, or download the file and give its path")


__all__ = ["ascii_url", "clear_url_errors", "download", "open_url"]
