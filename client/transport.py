"""HTTP requests to a server; what can go wrong is one of two exceptions."""

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import ProtocolError

# Seconds to connect and to answer. TorchServe itself gives up on a worker after 120 s of starting
# and after 60 s of work (config.properties); its message says more than a timeout here.
TIMEOUT = (5.0, 130.0)

# TorchServe's message for a full queue, which says nothing of the queue.
NO_WORKER = "has no worker to serve inference request"
FULL = "the queue is full, or the worker is still starting: send the request again"


class NoServerError(Exception):
    """No server answers at the address."""


class ServerError(Exception):
    """The server refused: its own message, and the HTTP status as `code`."""

    def __init__(self, code: int, message: str) -> None:
        """Keep the status beside the message."""
        super().__init__(message)
        self.code = code


def request(
    method: str,
    url: str,
    headers: Mapping[str, str],
    authority: str | None = None,
    **options: Any,
) -> requests.Response:
    """The server's response, if its status is below 400.

    `authority` is a PEM file of the certificate authority to trust (default: the machine's own);
    `options` are those of `requests.Session.request`.

    Raises:
        ServerError: the status is 400 or above, the response takes too long or breaks off, or the
            certificate is not trusted.
        NoServerError: no server answers there.
    """
    with requests.Session() as session:
        session.verify = authority or True
        # A proxy named in the environment can't reach this machine's loopback, and should not see
        # what is sent there.
        session.trust_env = not is_loopback(url)
        try:
            response = session.request(method, url, headers=headers, timeout=TIMEOUT, **options)
        except requests.ReadTimeout as error:
            raise ServerError(504, f"no answer within {TIMEOUT[1]:.0f} s") from error
        except requests.exceptions.SSLError as error:
            raise ServerError(
                495, f"{url} has a certificate that is not trusted here: --authority FILE ({error})"
            ) from error
        except requests.ConnectionError as error:
            if isinstance(error.args[0], ProtocolError):
                # TorchServe sometimes does this to an image above max_request_size.
                raise ServerError(502, "the server closed the connection") from error
            raise NoServerError(f"no server answers at {url}: start it with make serve") from error
    if response.status_code >= 400:
        raise ServerError(response.status_code, message_of(response))
    return response


def message_of(response: requests.Response) -> str:
    """The message in an error's JSON; without one (status 413), the status in words."""
    try:
        message = str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.reason
    return FULL if NO_WORKER in message else message


def is_loopback(url: str) -> bool:
    """Whether the host of a URL can be reached from this machine only."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
