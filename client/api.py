"""TorchServe's management API and what its answers mean, as functions of an address."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import ProtocolError

from client import tokens
from handlers import card as cards
from handlers.card import Archived, CardError

# TorchServe itself gives up on a worker after 120 s of starting and after 60 s of work
# (config.properties); its own message is worth waiting for.
TIMEOUT = (5.0, 130.0)

# Where the settings do not say otherwise; config.properties tells why.
BATCH_SIZE = 4
MAX_BATCH_DELAY_MS = 1

NO_WORKER = "has no worker to serve inference request"
FULL = "the queue is full, or the worker is being started: ask again"


@dataclass(frozen=True)
class Address:
    """One of a server's addresses, and what lets one in.

    `token` is given, or lies in `keys`, TorchServe's own file. `authority` signed the server's
    certificate: a PEM file, where it is not one that this machine trusts anyway.
    """

    url: str
    kind: str = tokens.MANAGEMENT  # whose token is asked for
    token: str | None = None
    keys: str | None = None
    management: str = ""  # where new tokens come from
    authority: str | None = None

    def headers(self) -> dict[str, str]:
        """What a request has to bring. Raises TokenError where there is no token to be had."""
        token = self.token
        if token is None and self.keys is not None:
            token = tokens.read(Path(self.keys), self.kind, self.management or self.url)
        return {"Authorization": f"Bearer {token}"} if token else {}


class NoServerError(Exception):
    """Nothing answers at the address."""


class ServerError(Exception):
    """The server refused: its own message, and its status as `code`."""

    def __init__(self, code: int, message: str) -> None:
        """Keep the status beside the message."""
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Version:
    """One version of one network on the server."""

    network: str
    version: str
    default: bool
    workers: int
    status: str
    pending: int


def call(
    method: str, address: Address, path: str, headers: dict[str, str] | None = None, **options: Any
) -> requests.Response:
    """The server's answer, where it is below 400.

    Raises ServerError with the server's message for any other, NoServerError where none listens.
    """
    url = f"{address.url}{path}"
    headers = {**(headers or {}), **address.headers()}
    with requests.Session() as session:
        session.verify = address.authority or True
        # A proxy named in the environment knows nothing of this machine's loopback.
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
                # So ends, now and then, an image above max_request_size.
                raise ServerError(502, "the server closed the connection") from error
            raise NoServerError(f"no server answers at {url}: start it with make serve") from error
    if response.status_code >= 400:
        raise ServerError(response.status_code, message_of(response))
    return response


def message_of(response: requests.Response) -> str:
    """The message of an error's JSON, else its status in words (a 413 comes without a body)."""
    try:
        message = str(response.json()["message"])
        # TorchServe says no more where the queue is full, and the workers are well.
        return FULL if NO_WORKER in message else message
    except (ValueError, KeyError, TypeError):
        return response.reason


def is_loopback(url: str) -> bool:
    """Whether the address can be reached from this machine alone."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts versions as people do: 1.9 before 1.10, numbers before words."""
    parts = version.split(".")
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts)


def versions(management: Address) -> list[Version]:
    """Every version of every network, sorted, with its workers and its queue."""
    found = []
    for network in _networks(management):
        default = call("GET", management, f"/models/{network}").json()[0]["modelVersion"]
        for entry in call("GET", management, f"/models/{network}/all").json():
            found.append(_version(entry, default))
    return sorted(found, key=lambda v: (v.network, version_key(v.version)))


def _networks(management: Address) -> list[str]:
    names: list[str] = []
    query: dict[str, str] = {}
    while True:
        page = call("GET", management, "/models", params=query).json()
        names += [entry["modelName"] for entry in page["models"]]
        if "nextPageToken" not in page:
            return names
        query = {"next_page_token": page["nextPageToken"]}


def _version(entry: dict[str, Any], default: str) -> Version:
    states = sorted({worker["status"] for worker in entry["workers"]})
    return Version(
        network=entry["modelName"],
        version=entry["modelVersion"],
        default=entry["modelVersion"] == default,
        workers=len(entry["workers"]),
        status=", ".join(states) or "no workers",
        pending=entry["jobQueueStatus"]["pendingRequests"],
    )


def card(management: Address, network: str, version: str) -> Archived:
    """The card a version answers with, after a real round trip through its worker.

    `/ping` stays healthy when a worker is dead; this does not.

    Raises:
        ServerError: the version does not answer, or not with the card of an archive.
    """
    path = f"/models/{network}/{version}"
    description = call("GET", management, path, params={"customized": "true"}).json()[0]
    metadata = description.get("customizedMetadata")
    if not isinstance(metadata, dict):
        raise ServerError(500, f"{network} {version} gives no card: {metadata!r}")
    try:
        parsed = cards.parse(metadata)
    except CardError as error:
        raise ServerError(500, f"{network} {version} gives no card: {error}") from error
    if not isinstance(parsed, Archived):
        raise ServerError(500, f"{network} {version} gives the card of no archive (no version)")
    return parsed


def register(
    management: Address,
    file: str,
    network: str,
    version: str,
    workers: int,
    batch_size: int,
    max_batch_delay: int,
) -> None:
    """Load an archive of the model store by its file name and wait until it answers.

    A failure leaves nothing behind: TorchServe alone would keep the version's name taken.
    """
    query = {
        "url": file,
        "initial_workers": "0",
        "batch_size": str(batch_size),
        "max_batch_delay": str(max_batch_delay),
    }
    call("POST", management, "/models", params=query)
    path = f"/models/{network}/{version}"
    try:
        call("PUT", management, path, params={"min_worker": str(workers), "synchronous": "true"})
        card(management, network, version)
    except (ServerError, NoServerError):
        call("DELETE", management, path)
        raise


def set_default(management: Address, network: str, version: str) -> None:
    """Requests that name no version go to this one from now on; those under way finish."""
    call("PUT", management, f"/models/{network}/{version}/set-default")
