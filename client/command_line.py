"""The options of `python -m client`, verb by verb."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import arguments
from client import predict, serve, settings, tokens

Verb = Callable[[argparse.Namespace], int]  # runs with the parsed options; the exit status


def parser(runs: Mapping[str, Verb]) -> argparse.ArgumentParser:
    """The parser of all verbs with their options; it sets `run` to the verb's function."""
    top = argparse.ArgumentParser(
        prog="python -m client",
        description="Start and stop a TorchServe of this project's archives, and send it images.",
    )
    verbs = top.add_subparsers(metavar="VERB", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument(
            "--state",
            type=Path,
            default=Path(".server"),
            help="folder of the server's state and logs (default: %(default)s)",
        )
        verb.set_defaults(run=runs[name])
        return verb

    _serve_options(add("serve", "start the server, or register new archives with the running one"))
    add("stop", "stop the server of this state folder and no other")
    _predict_options(add("predict", "send images, print a table, save overlays"))
    _score_options(add("score", "write a table of the answers to many images; resumable"))
    token = add("token", "print a token that the running server accepts, for an hour")
    token.add_argument(
        "kind",
        nargs="?",
        choices=[tokens.INFERENCE, tokens.MANAGEMENT],
        default=tokens.INFERENCE,
        help="the API that the token is for (default: %(default)s)",
    )
    _management_options(add("versions", "list the versions, with default and workers"))
    register = add("register", "load one more archive into the running server")
    register.add_argument("archive", type=Path, help="a file of the model store")
    promote = add("promote", "make a version the default of its network")
    rollback = add("rollback", "make the previous default the default again")
    retire = add("retire", "unregister a version after it has answered its last request")
    for verb in (promote, rollback, retire):
        verb.add_argument("network", help="name of the network")
        _management_options(verb)
    for verb in (promote, retire):
        verb.add_argument("version", help="one of its versions")
    _gate_options(promote)
    return top


def _gate_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--replay",
        type=Path,
        help="folder of images in NORMAL and PNEUMONIA that both versions answer first: the gate",
    )
    verb.add_argument(
        "--limits",
        type=Path,
        default=Path("deploy/gate.toml"),
        help="file of what the version may lose (default: %(default)s)",
    )
    verb.add_argument("--shadow", help="removed: use --replay and --watch")
    verb.add_argument(
        "--watch",
        type=float,
        default=0.0,
        help="seconds to watch the traffic after the promotion (default: %(default)s)",
    )


def _management_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--management", type=_url, help="address of management (default: the running server's)"
    )
    verb.add_argument("--token", help="a token for --management, if it needs one")


def _url(text: str) -> str:
    return text.rstrip("/")


def _serve_options(verb: argparse.ArgumentParser) -> None:
    arguments.add(verb, serve.Options)
    for name in settings.PORTS:
        verb.add_argument(
            f"--{name}-port", type=int, metavar="PORT", help="port, instead of the settings' one"
        )


def _predict_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="IMAGE_OR_FOLDER",
        help="images, or folders of images",
    )
    arguments.add(verb, predict.Question)
    _inference_options(verb)


def _score_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("folder", type=Path, help="folder of images")
    verb.add_argument(
        "--out", type=Path, default=Path("scores.csv"), help="CSV file (default: %(default)s)"
    )
    arguments.add(verb, predict.Question, without=("of_class", "save"))
    _inference_options(verb)


def _inference_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--server", type=_url, help="address of inference (default: the running server's)"
    )
    verb.add_argument("--token", help="a token for --server, if it needs one")
    verb.add_argument(
        "--authority", help="PEM file of the authority that signed the certificate of --server"
    )
