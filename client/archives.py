"""What lies in the model store: archives, checked before a server is asked to load them."""

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
TOGETHER = "pneumonia"  # the archive of several networks
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError)  # what zipfile raises for damaged content


class ArchiveError(Exception):
    """An archive that is missing or not whole."""


@dataclass(frozen=True)
class Archive:
    """One file of the model store."""

    path: Path
    network: str
    version: str
    sha256: str


def read(path: Path) -> Archive:
    """The archive at a path, after a look inside.

    TorchServe's own answer to a broken archive is "Unknown exception", and the name stays taken.

    Raises:
        ArchiveError: it is missing or not whole, or its manifest or card is malformed.
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
        raise ArchiveError(f"{path.name}: its card is not of {network} {version}: {REMEDY}")
    return Archive(path, network, version, files.sha256(path))


def card_of(path: Path) -> Archived:
    """The card in an archive.

    Raises:
        ArchiveError: the archive is missing or not whole, or a field of its card is malformed; the
            message names the archive and the field.
    """
    try:
        card = cards.loads(_unpack(path, CARD))
    except CardError as error:
        raise ArchiveError(f"{path.name}: {CARD}: {error}: {REMEDY}") from error
    if not isinstance(card, Archived):
        raise ArchiveError(f"{path.name}: {CARD} is not that of an archive (no version): {REMEDY}")
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
    except (*BROKEN, OSError) as error:
        raise ArchiveError(f"{path} is not a whole archive ({error}): {REMEDY}") from error


def check(archive: Archive) -> None:
    """Each file that the card names is in the archive, with the hash that the card names.

    Not done by `read`, since it unpacks all of it.

    Raises:
        ArchiveError: one is missing or another.
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
    """The archives of a model store, lowest version first; all networks where none are named.

    Where several are named, the archive of them together belongs to them.
    """
    archives = [read(path) for path in sorted(store.glob("*.mar"))]
    present = sorted({archive.network for archive in archives})
    for network in networks or []:
        if network not in present:
            holds = f" (it holds {', '.join(present)})" if present else ""
            raise ArchiveError(f"{store} holds no archive of {network}{holds}: {REMEDY}")
    if not archives:
        raise ArchiveError(f"{store} holds no archives: build them with make archive")
    chosen = present if networks is None else list(networks)
    if len(chosen) > 1:
        chosen.append(TOGETHER)
    wanted = [a for a in archives if a.network in chosen]
    return sorted(wanted, key=lambda a: (a.network, version_key(a.version)))


def highest(archives: list[Archive], network: str) -> str:
    """The highest version of a network."""
    return max((a.version for a in archives if a.network == network), key=version_key)
