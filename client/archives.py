"""The archives of the model store, checked before a server loads them."""

import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from client.api import version_key
from handlers import card as cards
from handlers import files
from handlers.card import CARD, Archived, CardError
from handlers.card_fields import StoredFile

MANIFEST = "MAR-INF/MANIFEST.json"
REMEDY = "build it with make archive"
ENSEMBLE = "pneumonia"  # the name of the archive of several networks
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)  # what zipfile raises for damaged content


class ArchiveError(Exception):
    """An archive is missing or damaged; the message names the file and the remedy."""


@dataclass(frozen=True)
class Archive:
    """One archive of the model store."""

    path: Path
    network: str
    version: str
    sha256: str  # of the file


def read(path: Path) -> Archive:
    """The archive at a path, its manifest and card checked.

    TorchServe would answer "Unknown exception" to a broken archive and keep its name taken.

    Raises:
        ArchiveError: it is missing or damaged, or its manifest or card is malformed.
    """
    card = card_of(path)
    try:
        model = json.loads(_unpack(path, MANIFEST))["model"]
        network, version = model["modelName"], model["modelVersion"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ArchiveError(
            f"{path.name}: {MANIFEST} names no modelName and modelVersion: {REMEDY}"
        ) from error
    if (card.network, card.version) != (network, version):
        raise ArchiveError(
            f"{path.name}: its manifest names {network} {version}, its card {card.network} "
            f"{card.version}: {REMEDY}"
        )
    return Archive(path, network, version, files.sha256(path))


def card_of(path: Path) -> Archived:
    """The card in an archive.

    Raises:
        ArchiveError: the archive is missing or damaged, or a field of its card is malformed; the
            message names the archive and the field.
    """
    try:
        card = cards.loads(_unpack(path, CARD))
    except CardError as error:
        raise ArchiveError(f"{path.name}: {CARD}: {error}: {REMEDY}") from error
    if not isinstance(card, Archived):
        raise ArchiveError(f"{path.name}: {CARD} is not of an archive, it has no version: {REMEDY}")
    return card


def _unpack(path: Path, name: str) -> bytes:
    """The content of one file of an archive."""
    try:
        with zipfile.ZipFile(path) as packed:
            return packed.read(name)
    except FileNotFoundError:
        raise ArchiveError(f"{path} does not exist: {REMEDY}") from None
    except KeyError as error:
        raise ArchiveError(f"{path.name} holds no {name}: {REMEDY}") from error
    except (*DAMAGED, OSError) as error:
        raise ArchiveError(f"{path} is not a whole archive ({error}): {REMEDY}") from error


def check(archive: Archive) -> None:
    """Check the hash of each file that the card names.

    `read` leaves this out, since it unpacks the whole archive.

    Raises:
        ArchiveError: a file is missing, or its hash is not the card's.
    """
    card, name = card_of(archive.path), archive.path.name
    stored: list[StoredFile] = [network.graph for network in card.networks]
    if card.golden is not None:
        stored.append(card.golden)
    for file in stored:
        sha256 = hashlib.sha256(_unpack(archive.path, file.file)).hexdigest()
        if sha256 != file.sha256:
            raise ArchiveError(
                f"{name}: {file.file} has sha256 {sha256[:12]}, its card says "
                f"{file.sha256[:12]}: {REMEDY}"
            )


def find(store: Path, networks: list[str] | None) -> list[Archive]:
    """The archives of `networks` in a model store, by network, then from the lowest version.

    None stands for all networks. Several networks include the archive of their ensemble.

    Raises:
        ArchiveError: there is no archive of a network, or none at all.
    """
    archives = [read(path) for path in sorted(store.glob("*.mar"))]
    present = sorted({archive.network for archive in archives})
    for network in networks or []:
        if network not in present:
            holds = f" (it holds {', '.join(present)})" if present else ""
            raise ArchiveError(f"{store} holds no archive of {network}{holds}: {REMEDY}")
    if not archives:
        raise ArchiveError(f"{store} holds no archives: build them with make archive")
    names = present if networks is None else list(networks)
    if len(names) > 1:
        names.append(ENSEMBLE)
    chosen = [archive for archive in archives if archive.network in names]
    return sorted(chosen, key=lambda archive: (archive.network, version_key(archive.version)))


def highest(archives: list[Archive], network: str) -> str:
    """The highest version of a network among archives."""
    versions = (archive.version for archive in archives if archive.network == network)
    return max(versions, key=version_key)
