"""The verbs `versions`, `promote`, `rollback` and `retire`."""

import time
from dataclasses import dataclass
from pathlib import Path

from client import api, gate, predict, watch
from client import state as states
from client.api import Version

DRAIN_SECONDS = 60


class VersionError(Exception):
    """The server has no such version, or it can't be promoted or retired now."""


def table(versions: list[Version]) -> str:
    """A table of versions as text, one line each."""
    head = f"{'network':<13}{'version':<9}{'default':<9}{'workers':<9}{'status':<12}queue"
    rows = [
        f"{version.network:<13}{version.version:<9}{'default' if version.default else '':<9}"
        f"{version.workers:<9}{version.status:<12}{version.pending}"
        for version in versions
    ]
    return "\n".join([head, *rows])


@dataclass(frozen=True)
class Gate:
    """The conditions of a promotion: a replay set before it, and the traffic after it."""

    replay: Path
    limits: gate.Limits
    inference: api.Address
    metrics: str  # URL
    watch: float = 0.0  # seconds of traffic
    reports: Path = Path(".server/promotions")


def promote(
    management: api.Address, state: Path, network: str, version: str, rules: Gate | None = None
) -> list[str]:
    """Make a version the default; the history of defaults, the new one last.

    The version must answer first. With `rules`, it must also pass the gate, and the default is
    switched back if the traffic after it has errors or is slow.

    Raises:
        VersionError: the server has no such network or version.
        GateError: the candidate was refused or switched back; the report says why.
        ServerError: the version does not answer.
    """
    with states.locked(state):
        history = _history(management, state, network)
        before = history[-1]
        if before == version:
            return _switch(management, state, network, history)
        if rules is None:
            return _switch(management, state, network, [*history, version])
        _served(management, network, version)
        versions = (before, version)
        question = predict.Question(rules.inference, network)
        answers = gate.replay(rules.replay, question, versions)
        figures, checks = gate.check(answers[before], answers[version], versions, rules.limits)
        missed = [check.name for check in checks if not check.passed]

        def report(outcome: str) -> str:
            path = gate.write(rules.reports, network, figures, checks, outcome)
            return f"{outcome}: {path}"

        if missed:
            raise gate.GateError(report(f"Refused for {', '.join(missed)}"))
        after = _switch(management, state, network, [*history, version])
        for trouble in watch.trouble(rules.metrics, network, versions, rules.limits, rules.watch):
            if trouble:
                _switch(management, state, network, history)
                raise gate.GateError(report(f"Switched back to {before}: {trouble}"))
        print(report("Passed"))
        return after


def retire(management: api.Address, state: Path, network: str, version: str) -> None:
    """Unregister a version after it has answered its last request.

    TorchServe never answers requests that are queued when it unregisters a version. So this waits
    until the queue is empty and the workers have answered what they had.

    Raises:
        VersionError: the version is the default or is not served, or requests for it don't end.
    """
    with states.locked(state):
        candidate = _served(management, network, version)
        if candidate.default:
            raise VersionError(f"{network} {version} is the default: promote another version first")
        until = time.monotonic() + DRAIN_SECONDS
        while _served(management, network, version).pending:
            if time.monotonic() > until:
                raise VersionError(
                    f"{network} {version} still receives requests: let its clients send them to "
                    "another version first"
                )
            time.sleep(0.1)
        for _ in range(candidate.workers):  # answered only after all earlier requests
            api.card(management, network, version)
        api.call("DELETE", management, f"/models/{network}/{version}")
        states.record_retired(state, network, version)


def _served(management: api.Address, network: str, version: str) -> Version:
    """A version on the server.

    Raises:
        VersionError: the server does not have it; the message names those it has.
    """
    present = {v.version: v for v in api.versions(management) if v.network == network}
    if version not in present:
        raise VersionError(
            f"{network} has no version {version}: it has {', '.join(present) or 'none'}"
        )
    return present[version]


def rollback(management: api.Address, state: Path, network: str) -> list[str]:
    """Make the previous default the default again; the history of defaults, that one last.

    Raises:
        VersionError: there was no other default, or the server does not have it.
    """
    with states.locked(state):
        history = _history(management, state, network)[:-1]
        if not history:
            raise VersionError(f"{network} has had no other default: promote the version you want")
        return _switch(management, state, network, history)


def _history(management: api.Address, state: Path, network: str) -> list[str]:
    """The recorded defaults, and the present one, which the management API may have changed."""
    served = api.versions(management)
    default = next((v.version for v in served if v.network == network and v.default), None)
    if default is None:
        names = ", ".join(sorted({version.network for version in served})) or "none"
        raise VersionError(f"the server has no network {network}: it has {names}")
    history = states.defaults(state, network)
    return history if history[-1:] == [default] else [*history, default]


def _switch(management: api.Address, state: Path, network: str, history: list[str]) -> list[str]:
    """Make the last version of a history the default, if it answers; the history."""
    _served(management, network, history[-1])
    api.card(management, network, history[-1])
    api.set_default(management, network, history[-1])
    states.record_defaults(state, network, history)
    return history
