"""The verbs `versions`, `promote` and `rollback`: which version of a network is the default."""

from pathlib import Path

from client import api
from client import state as states
from client.api import Version


class VersionError(Exception):
    """A version that is not there to be promoted, with those that are."""


def table(versions: list[Version]) -> str:
    """One line a version."""
    head = f"{'network':<13}{'version':<9}{'default':<9}{'workers':<9}{'status':<12}queue"
    rows = [
        f"{v.network:<13}{v.version:<9}{'default' if v.default else '':<9}"
        f"{v.workers:<9}{v.status:<12}{v.pending}"
        for v in versions
    ]
    return "\n".join([head, *rows])


def promote(management: api.Address, state: Path, network: str, version: str) -> list[str]:
    """Make a version the default, once it has answered; the history of defaults, it last."""
    with states.locked(state):
        history = _history(management, state, network)
        if history[-1] != version:
            history.append(version)
        return _switch(management, state, network, history)


def rollback(management: api.Address, state: Path, network: str) -> list[str]:
    """Back to the default of before; the history of defaults, it last."""
    with states.locked(state):
        history = _history(management, state, network)[:-1]
        if not history:
            raise VersionError(f"{network} has had no other default: promote the version you want")
        return _switch(management, state, network, history)


def _history(management: api.Address, state: Path, network: str) -> list[str]:
    """The recorded defaults, ended by the true one: the API may have been used by hand."""
    known = api.versions(management)
    default = next((v.version for v in known if v.network == network and v.default), None)
    if default is None:
        names = ", ".join(sorted({v.network for v in known})) or "none"
        raise VersionError(f"the server has no network {network}: it has {names}")
    history = states.defaults(state, network)
    return history if history[-1:] == [default] else [*history, default]


def _switch(management: api.Address, state: Path, network: str, history: list[str]) -> list[str]:
    there = [v.version for v in api.versions(management) if v.network == network]
    if history[-1] not in there:
        raise VersionError(f"{network} has no version {history[-1]}: it has {', '.join(there)}")
    api.card(management, network, history[-1])
    api.set_default(management, network, history[-1])
    states.record_defaults(state, network, history)
    return history
