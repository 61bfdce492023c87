"""Tells a lost connection to the Hub from its other errors."""

from huggingface_hub import constants

# The base of all that an HTTP request can raise; it is httpx's in huggingface_hub 1.x and httpx2's in 2.x.
from huggingface_hub.errors import HfHubHTTPError, HTTPError


def http_error(error: BaseException) -> HTTPError | None:
    """Returns the HTTP error that this is or was raised for: Transformers and the client wrap them once."""
    found = error if isinstance(error, HTTPError) else error.__cause__ or error.__context__
    return found if isinstance(found, HTTPError) else None


def lost_connection(error: BaseException) -> str | None:
    """Returns an advice for the user if the Hub gave no answer, or one of its own errors; `None` for other errors."""
    found = http_error(error)
    if found is None or (isinstance(found, HfHubHTTPError) and found.response.status_code < 500):
        return None
    return connection_advice(found)


def connection_advice(error: Exception) -> str:
    return (
        f"{constants.ENDPOINT} cannot be reached ({str(error) or type(error).__name__}). The same command goes on "
        "where it stopped: large files that have gone over as a whole do not go again."
    )


__all__ = ["HTTPError", "connection_advice", "http_error", "lost_connection"]
