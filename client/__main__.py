"""`python -m client VERB`: start, stop and ask a TorchServe that serves this project's archives."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import arguments
from client import (
    api,
    archives,
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
SHADOWING_ENDED = (
    "shadowing has ended: judge the version on your images with --replay FOLDER (make: "
    "REPLAY=folder) and under traffic with --watch SECONDS (make: WATCH=seconds)"
)

Verb = Callable[[argparse.Namespace], int]


def parser() -> argparse.ArgumentParser:
    """All verbs with their options."""
    top = argparse.ArgumentParser(prog="python -m client", description=__doc__)
    verbs = top.add_subparsers(metavar="VERB", required=True)

    def add(name: str, run: Verb, text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument(
            "--state", type=Path, default=Path(".server"), help="state folder (%(default)s)"
        )
        verb.set_defaults(run=run)
        return verb

    _serve_options(add("serve", _serve, "start the server, or bring it up to date"))
    add("stop", _stop, "stop the server of this state folder, and it alone")
    _predict_options(add("predict", _predict, "send images, print a table, save overlays"))
    _score_options(add("score", _score, "many images into a table; goes on where it was"))
    token = add("token", _token, "print a token that the running server takes, for an hour")
    token.add_argument(
        "kind", nargs="?", choices=[tokens.INFERENCE, tokens.MANAGEMENT], default=tokens.INFERENCE
    )
    _address(add("versions", _versions, "list every version: default or not, workers, status"))
    register = add("register", _register, "load one archive more into the running server")
    register.add_argument("archive", type=Path, help="a file of the model store")
    promote = add("promote", _promote, "make a version the default")
    rollback = add("rollback", _rollback, "back to the default of before")
    for verb in (promote, rollback):
        verb.add_argument("network")
        _address(verb)
    promote.add_argument("version")
    promote.add_argument("--replay", type=Path, help="folder of NORMAL and PNEUMONIA: the gate")
    promote.add_argument(
        "--limits",
        type=Path,
        default=Path("deploy/gate.toml"),
        help="what it may lose (%(default)s)",
    )
    promote.add_argument("--shadow", help="no longer available: use --replay and --watch")
    promote.add_argument("--watch", type=float, default=0.0, help="seconds of traffic afterwards")
    retire = add("retire", _retire, "take a version off once its last answer is out")
    retire.add_argument("network")
    _address(retire)
    retire.add_argument("version")
    return top


def _address(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--management", type=_url, help="address (that of the running server)")
    verb.add_argument("--token", help="for management, where --management asks for one")


def _url(text: str) -> str:
    return text.rstrip("/")


def _serve_options(verb: argparse.ArgumentParser) -> None:
    arguments.add(verb, serve.Options)
    for name in settings.PORTS:
        verb.add_argument(f"--{name}-port", type=int, metavar="PORT", help="over the settings'")


def _predict_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("paths", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER")
    arguments.add(verb, predict.Question)
    _inference_options(verb)


def _score_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("folder", type=Path)
    verb.add_argument("--out", type=Path, default=Path("scores.csv"), help="table (%(default)s)")
    arguments.add(verb, predict.Question, without=("of_class", "save"))
    _inference_options(verb)


def _inference_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--server", type=_url, help="inference address (the running server's)")
    verb.add_argument("--token", help="for inference, where --server asks for one")
    verb.add_argument("--authority", help="PEM file that signed its certificate")


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
        raise api.NoServerError("no server is running here: start it with make serve")
    if running.keys is None:
        raise tokens.TokenError("this server asks for no token: start it with AUTH=token")
    print(tokens.read(Path(running.keys), options.kind, running.management))
    return 0


def _versions(options: argparse.Namespace) -> int:
    print(versions.table(api.versions(_management(options))))
    return 0


def _register(options: argparse.Namespace) -> int:
    with states.locked(options.state):
        running = states.running(options.state)
        if running is None:
            raise api.NoServerError("no server is running here: start it with make serve")
        serve.register_file(options.state, running, options.archive)
    return 0


def _promote(options: argparse.Namespace) -> int:
    if options.shadow is not None:
        raise gate.GateError(SHADOWING_ENDED)
    history = versions.promote(
        _management(options), options.state, options.network, options.version, _gate(options)
    )
    print(f"{options.network}: {' -> '.join(history[-2:])} is the default now")
    return 0


def _gate(options: argparse.Namespace) -> versions.Gate | None:
    running = states.running(options.state)
    if options.replay is None:
        print("not gated: --replay FOLDER lets old and new answer the same images first")
        return None
    if running is None:
        raise api.NoServerError("the gate asks the server of this machine: make serve")
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
    print(f"{options.network} {options.version} is off; its archive stays in the model store")
    return 0


def _rollback(options: argparse.Namespace) -> int:
    history = versions.rollback(_management(options), options.state, options.network)
    print(f"{options.network}: {history[-1]} is the default again")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; 0, 1 for an error, 2 where no server answers."""
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
