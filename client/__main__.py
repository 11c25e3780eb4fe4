"""`python -m client VERB`: start and stop a TorchServe of this project's archives, send images."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import arguments
from client import (
    api,
    archives,
    command_line,
    gate,
    predict,
    score,
    serve,
    server,
    settings,
    tokens,
    versions,
)
from client import state as states
from client.command_line import Verb

ERRORS = (
    archives.ArchiveError,
    settings.StartError,
    versions.VersionError,
    api.ServerError,
    tokens.TokenError,
    score.ScoreError,
    gate.GateError,
)
NO_SERVER = 2
NO_RUNNING_SERVER = "no server is running here: start it with make serve"
SHADOW_REMOVED = (
    "--shadow was removed: test the version on your images with --replay FOLDER (make: "
    "REPLAY=folder) and under traffic with --watch SECONDS (make: WATCH=seconds)"
)


def _serve(options: argparse.Namespace) -> int:
    ports = {name: getattr(options, f"{name.replace('-', '_')}_port") for name in settings.PORTS}
    ports = {name: port for name, port in ports.items() if port}
    serve.serve(arguments.build(serve.Options, options, state=options.state, ports=ports))
    return 0


def _stop(options: argparse.Namespace) -> int:
    with states.locked(options.state):
        stopped = server.stop(options.state)
    print("Stopped." if stopped else "No server is running here.")
    return 0


def _predict(options: argparse.Namespace) -> int:
    return predict.predict(options.paths, _question(options))


def _score(options: argparse.Namespace) -> int:
    return score.score(options.folder, options.out, _question(options))


def _question(options: argparse.Namespace) -> predict.Question:
    running = states.running(options.state)
    return arguments.build(predict.Question, options, server=_inference(options, running))


def _inference(options: argparse.Namespace, running: states.Running | None) -> api.Address:
    if options.server or options.token or not running:
        url = options.server or (running.inference if running else "http://127.0.0.1:8080")
        return api.Address(url, tokens.INFERENCE, options.token, authority=options.authority)
    return running.inference_at


def _management(options: argparse.Namespace) -> api.Address:
    running = states.running(options.state)
    if options.management or options.token or not running:
        url = options.management or (running.management if running else "http://127.0.0.1:8081")
        return api.Address(url, tokens.MANAGEMENT, options.token)
    return running.management_at


def _token(options: argparse.Namespace) -> int:
    running = states.running(options.state)
    if running is None:
        raise api.NoServerError(NO_RUNNING_SERVER)
    if running.keys is None:
        raise tokens.TokenError("this server needs no token: start it with AUTH=token to need one")
    print(tokens.read(Path(running.keys), options.kind, running.management))
    return 0


def _versions(options: argparse.Namespace) -> int:
    print(versions.table(api.versions(_management(options))))
    return 0


def _register(options: argparse.Namespace) -> int:
    with states.locked(options.state):
        running = states.running(options.state)
        if running is None:
            raise api.NoServerError(NO_RUNNING_SERVER)
        serve.register_file(options.state, running, options.archive)
    return 0


def _promote(options: argparse.Namespace) -> int:
    if options.shadow is not None:
        raise gate.GateError(SHADOW_REMOVED)
    history = versions.promote(
        _management(options), options.state, options.network, options.version, _gate(options)
    )
    print(f"{options.network}: {' -> '.join(history[-2:])} is the default now")
    return 0


def _gate(options: argparse.Namespace) -> versions.Gate | None:
    running = states.running(options.state)
    if options.replay is None:
        print("no gate: with --replay FOLDER both versions answer the same images first")
        return None
    if running is None:
        raise api.NoServerError("the gate needs the server of this machine: start it, make serve")
    return versions.Gate(
        replay=options.replay,
        limits=gate.limits(options.limits),
        inference=running.inference_at,
        metrics=f"http://127.0.0.1:{running.ports['metrics']}",
        watch=options.watch,
        reports=options.state / "promotions",
    )


def _retire(options: argparse.Namespace) -> int:
    versions.retire(_management(options), options.state, options.network, options.version)
    print(
        f"{options.network} {options.version} is unregistered; its archive stays in the model store"
    )
    return 0


def _rollback(options: argparse.Namespace) -> int:
    history = versions.rollback(_management(options), options.state, options.network)
    print(f"{options.network}: {history[-1]} is the default again")
    return 0


VERBS: dict[str, Verb] = {
    "serve": _serve,
    "stop": _stop,
    "predict": _predict,
    "score": _score,
    "token": _token,
    "versions": _versions,
    "register": _register,
    "promote": _promote,
    "rollback": _rollback,
    "retire": _retire,
}


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs with their options; `run` of the parsed ones runs the verb."""
    return command_line.parser(VERBS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; its exit status: 0, 1 for an error, 2 if no server answers."""
    options = parser().parse_args(argv)
    run: Verb = options.run
    try:
        return run(options)
    except ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except api.NoServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return NO_SERVER
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
