"""TorchServe's management API as functions of an address."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from client import tokens, transport
from client.transport import NoServerError as NoServerError
from client.transport import ServerError as ServerError
from handlers import card as cards
from handlers.card import Archived, CardError

# Used if the settings name none; config.properties says why these.
BATCH_SIZE = 4
MAX_BATCH_DELAY_MS = 1


@dataclass(frozen=True)
class Address:
    """One of a server's addresses, with the credentials it needs.

    The token is `token`, or read from `keys`, the file that TorchServe writes. `authority` is the
    PEM file of the authority that signed the server's certificate, if this machine does not trust
    it already.
    """

    url: str
    kind: str = tokens.MANAGEMENT  # of the token
    token: str | None = None
    keys: str | None = None
    management: str = ""  # URL that issues new tokens
    authority: str | None = None

    def headers(self) -> dict[str, str]:
        """The headers that authorize a request.

        Raises:
            TokenError: the server needs a token and none can be read.
        """
        token = self.token
        if token is None and self.keys is not None:
            token = tokens.read(Path(self.keys), self.kind, self.management or self.url)
        return {"Authorization": f"Bearer {token}"} if token else {}


@dataclass(frozen=True)
class Version:
    """One version of one network on the server."""

    network: str
    version: str
    default: bool
    workers: int
    status: str  # of the workers
    pending: int  # requests in its queue


def call(
    method: str, address: Address, path: str, headers: dict[str, str] | None = None, **options: Any
) -> requests.Response:
    """The response to an authorized request, if its status is below 400.

    `options` are those of `requests.Session.request`.

    Raises:
        ServerError: the server refused, with its message.
        NoServerError: no server answers at the address.
        TokenError: the server needs a token and none can be read.
    """
    headers = {**(headers or {}), **address.headers()}
    return transport.request(method, address.url + path, headers, address.authority, **options)


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts versions part by part: 1.9 before 1.10, numbers before words."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in version.split(".")
    )


def versions(management: Address) -> list[Version]:
    """Every version of every network on the server, by network, then from the lowest version."""
    served = []
    for network in _networks(management):
        default = call("GET", management, f"/models/{network}").json()[0]["modelVersion"]
        descriptions = call("GET", management, f"/models/{network}/all").json()
        served += [_version(description, default) for description in descriptions]
    return sorted(served, key=lambda version: (version.network, version_key(version.version)))


def _networks(management: Address) -> list[str]:
    names: list[str] = []
    query: dict[str, str] = {}
    while True:
        page = call("GET", management, "/models", params=query).json()
        names += [model["modelName"] for model in page["models"]]
        if "nextPageToken" not in page:
            return names
        query = {"next_page_token": page["nextPageToken"]}


def _version(description: dict[str, Any], default: str) -> Version:
    """A version by TorchServe's description of it and the version that is the default."""
    states = sorted({worker["status"] for worker in description["workers"]})
    return Version(
        network=description["modelName"],
        version=description["modelVersion"],
        default=description["modelVersion"] == default,
        workers=len(description["workers"]),
        status=", ".join(states) or "no workers",
        pending=description["jobQueueStatus"]["pendingRequests"],
    )


def card(management: Address, network: str, version: str) -> Archived:
    """The card of a version, returned by its worker.

    A readiness check as well: `/ping` stays healthy when a worker is dead, this fails.

    Raises:
        ServerError: the version does not answer, or not with the card of an archive.
        NoServerError: no server answers at the address.
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
        raise ServerError(
            500, f"{network} {version} gives a card that is not of an archive: it has no version"
        )
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
    """Load an archive of the model store by its file name, and return when it answers.

    `max_batch_delay` is in milliseconds. On failure the version is unregistered again, since
    TorchServe would keep its name taken.

    Raises:
        ServerError: the server refused the archive, or its worker does not start.
        NoServerError: no server answers at the address.
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
    """Make a version the one that answers requests without a version; those under way finish."""
    call("PUT", management, f"/models/{network}/{version}/set-default")
