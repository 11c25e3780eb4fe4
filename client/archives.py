"""What lies in the model store: archives, checked before a server is asked to load them."""

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from client.api import version_key

REMEDY = "build it with make archive"
TOGETHER = "pneumonia"  # the archive of several networks


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
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
            card = json.loads(archive.read("card.json"))
    except FileNotFoundError:
        raise ArchiveError(f"{path} does not exist: {REMEDY}") from None
    except (zipfile.BadZipFile, OSError) as error:
        raise ArchiveError(f"{path} is not a whole archive ({error}): {REMEDY}") from error
    except KeyError as error:
        raise ArchiveError(f"{path.name} holds no {_missing(error)}: {REMEDY}") from error
    except ValueError as error:
        raise ArchiveError(f"{path.name} holds broken JSON ({error}): {REMEDY}") from error
    model = manifest["model"]
    network, version = model["modelName"], model["modelVersion"]
    if (card.get("network"), card.get("version")) != (network, version):
        raise ArchiveError(f"{path.name}: its card is not of {network} {version}: {REMEDY}")
    return Archive(path, network, version, _sha256(path))


def _missing(error: KeyError) -> str:
    return "card.json" if "card.json" in str(error) else "MAR-INF/MANIFEST.json"


def check(archive: Archive) -> None:
    """Each file that the card names is in the archive, and of the hash that it says.

    Not done by `read`, since it unpacks all of it.

    Raises:
        ArchiveError: one is missing or another.
    """
    name = archive.path.name
    with zipfile.ZipFile(archive.path) as packed:
        card = json.loads(packed.read("card.json"))
        named = [one["graph"] for one in card.get("members") or [card] if "graph" in one]
        if "golden" in card:
            named.append(card["golden"])
        for said in named:
            if said["file"] not in packed.namelist():
                raise ArchiveError(f"{name} holds no {said['file']}: {REMEDY}")
            try:
                found = hashlib.sha256(packed.read(said["file"])).hexdigest()
            except zipfile.BadZipFile as error:
                raise ArchiveError(f"{name} is not a whole archive ({error}): {REMEDY}") from error
            if found != said["sha256"]:
                raise ArchiveError(
                    f"{name}: {said['file']} has sha256 {found[:12]}, its card says "
                    f"{said['sha256'][:12]}: {REMEDY}"
                )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find(store: Path, networks: list[str] | None) -> list[Archive]:
    """The archives of a model store, lowest version first; all networks where none are named.

    Where several are named, the archive of them together belongs to them.
    """
    archives = [read(path) for path in sorted(store.glob("*.mar"))]
    known = sorted({archive.network for archive in archives})
    for network in networks or []:
        if network not in known:
            there = f" (it holds {', '.join(known)})" if known else ""
            raise ArchiveError(f"{store} holds no archive of {network}{there}: {REMEDY}")
    if not archives:
        raise ArchiveError(f"{store} holds no archives: build them with make archive")
    chosen = known if networks is None else list(networks)
    if len(chosen) > 1:
        chosen.append(TOGETHER)
    wanted = [a for a in archives if a.network in chosen]
    return sorted(wanted, key=lambda a: (a.network, version_key(a.version)))


def highest(archives: list[Archive], network: str) -> str:
    """The highest version of a network."""
    return max((a.version for a in archives if a.network == network), key=version_key)
