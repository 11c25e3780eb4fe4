"""The verbs `versions`, `promote`, `rollback` and `retire`: which versions serve, and as what."""

import time
from dataclasses import dataclass
from pathlib import Path

from client import api, gate, predict, watch
from client import state as states
from client.api import Version

DRAIN_SECONDS = 60


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


@dataclass(frozen=True)
class Gate:
    """How a promotion is judged: by a replay set before, by traffic after."""

    replay: Path
    limits: gate.Limits
    inference: api.Address
    metrics: str
    watch: float = 0.0  # seconds
    reports: Path = Path(".server/promotions")


def promote(
    management: api.Address, state: Path, network: str, version: str, judge: Gate | None = None
) -> list[str]:
    """Make a version the default, once it has answered; the history of defaults, it last.

    With a gate only if it passes, and back again when it does not do well under traffic.

    Raises:
        GateError: the candidate was refused or switched back; the report says why.
    """
    with states.locked(state):
        history = _history(management, state, network)
        before = history[-1]
        if before == version:
            return _switch(management, state, network, history)
        if judge is None:
            return _switch(management, state, network, [*history, version])
        _there(management, network, version)
        versions = (before, version)
        question = predict.Question(judge.inference, network)
        answers = gate.replay(judge.replay, question, versions)
        found, checks = gate.check(answers[before], answers[version], versions, judge.limits)
        missed = [one.name for one in checks if not one.passed]

        def report(outcome: str) -> str:
            path = gate.write(judge.reports, network, found, checks, outcome)
            return f"{outcome}: {path}"

        if missed:
            raise gate.GateError(report(f"Refused for {', '.join(missed)}"))
        after = _switch(management, state, network, [*history, version])
        for trouble in watch.trouble(judge.metrics, network, versions, judge.limits, judge.watch):
            if trouble:
                _switch(management, state, network, history)
                raise gate.GateError(report(f"Switched back to {before}: {trouble}"))
        print(report("Passed"))
        return after


def retire(management: api.Address, state: Path, network: str, version: str) -> None:
    """Take a version off the server once its last answer is out.

    TorchServe's own unregistering leaves queued requests unanswered for ever, so the queue is empty
    first, and the worker has answered what it had.

    Raises:
        VersionError: it is the default or not there, or requests for it do not end.
    """
    with states.locked(state):
        found = _there(management, network, version)
        if found.default:
            raise VersionError(f"{network} {version} is the default: promote another version first")
        until = time.monotonic() + DRAIN_SECONDS
        while _there(management, network, version).pending:
            if time.monotonic() > until:
                raise VersionError(
                    f"{network} {version} is still asked: point its clients elsewhere"
                )
            time.sleep(0.1)
        for _ in range(found.workers):  # answered after all that went before
            api.card(management, network, version)
        api.call("DELETE", management, f"/models/{network}/{version}")
        states.record_retired(state, network, version)


def _there(management: api.Address, network: str, version: str) -> Version:
    known = [one for one in api.versions(management) if one.network == network]
    for one in known:
        if one.version == version:
            return one
    names = ", ".join(one.version for one in known) or "none"
    raise VersionError(f"{network} has no version {version}: it has {names}")


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
    _there(management, network, history[-1])
    api.card(management, network, history[-1])
    api.set_default(management, network, history[-1])
    states.record_defaults(state, network, history)
    return history
