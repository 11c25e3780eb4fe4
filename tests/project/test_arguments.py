"""Command-line options and the dataclasses that they become."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest

import arguments
import client.__main__ as client_line
import train.__main__ as train_line
from arguments import option
from client import predict, score, serve, settings
from train.fitting.options import Options


@dataclass(frozen=True)
class Example:
    """Options of each type."""

    count: int = option(3, "number of images (%(default)s)")
    long_name: Path | None = option(None, "a folder")
    loud: bool = option(False, "print more")
    of_class: str = option("all", "a class", name="--class", choices=["all", "none"])
    many: tuple[str, ...] = option((), "several", type=str, nargs="+")
    rest: dict[str, int] = field(default_factory=dict)


def parsed(*argv: str, without: tuple[str, ...] = ()) -> Example:
    parser = argparse.ArgumentParser()
    arguments.add(parser, Example, without)
    return arguments.build(Example, parser.parse_args(argv), rest={"a": 1})


def test_defaults_come_from_the_dataclass() -> None:
    assert parsed() == Example(rest={"a": 1})


def test_every_type_of_option() -> None:
    argv = ["--count", "4", "--long-name", "x/y", "--loud", "--class", "none", "--many", "a", "b"]
    example = parsed(*argv)
    assert example == Example(4, Path("x/y"), True, "none", ["a", "b"], {"a": 1})  # type: ignore[arg-type]
    assert isinstance(example.count, int)


@pytest.mark.parametrize("name", ["--rest", "--of-class", "--long_name"])
def test_only_option_fields_are_options(name: str) -> None:
    with pytest.raises(SystemExit):
        parsed(name, "x")


def test_an_omitted_option_keeps_the_default() -> None:
    assert parsed("--count", "4", without=("loud", "of_class")).loud is False
    with pytest.raises(SystemExit):
        parsed("--loud", without=("loud",))


def test_help_has_defaults_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    printed = capsys.readouterr().out
    assert "--long-name LONG_NAME" in printed
    assert "number of images (3)" in printed
    assert "--class {all,none}" in printed


def test_a_field_of_several_values_needs_a_type() -> None:
    @dataclass
    class Wrong:
        names: list[str] | None = option(None, "names")

    with pytest.raises(TypeError, match=r"names: .*give the option its type="):
        arguments.add(argparse.ArgumentParser(), Wrong)


# The command lines

TRAIN = {
    "data": ("--data d", Path("d")),
    "init": ("--init scratch", "scratch"),
    "preset": ("--preset tiny", "tiny"),
    "networks": ("--networks densenet161", ("densenet161",)),
    "seed": ("--seed 1", 1),
    "split_seed": ("--split-seed 2", 2),
    "patient": ("--patient table.csv:id", "table.csv:id"),
    "masks": ("--masks m", Path("m")),
    "skip_broken": ("--skip-broken", True),
    "runs": ("--runs r", Path("r")),
}
SERVE = {
    "networks": ("--networks a b", ["a", "b"]),
    "model_store": ("--model-store m", Path("m")),
    "config": ("--config c", Path("c")),
    "log_config": ("--log-config l", Path("l")),
    "data": ("--data d", Path("d")),
    "auth": ("--auth token", "token"),
    "tls": ("--tls t", Path("t")),
    "address": ("--address 0.0.0.0", "0.0.0.0"),
    "state": ("--state s", Path("s")),
    "ports": (
        " ".join(f"--{name}-port {9000 + n}" for n, name in enumerate(settings.PORTS)),
        {name: 9000 + n for n, name in enumerate(settings.PORTS)},
    ),
}
SCORE = {
    "network": ("--network n", "n"),
    "version": ("--version 2.0", "2.0"),
    "operating_point": ("--operating-point screening", "screening"),
}
PREDICT = {
    **SCORE,
    "of_class": ("--class NORMAL", "NORMAL"),
    "save": ("--save f", Path("f")),
}


def train_options(*argv: str) -> Options:
    return arguments.build(Options, train_line.parser().parse_args(["train", *argv]))


def test_train_has_an_option_for_every_field() -> None:
    assert TRAIN.keys() == {field.name for field in fields(Options)}
    assert train_options() == Options()
    for name, (argv, value) in TRAIN.items():
        assert train_options(*argv.split()) == Options(**{name: value})  # type: ignore[arg-type]


def test_networks_are_a_single_argument(capsys: pytest.CaptureFixture[str]) -> None:
    both = ("densenet161", "resnet50")
    assert train_options("--networks", "densenet161 resnet50").networks == both
    assert train_options("--networks", "densenet161,resnet50").networks == both
    with pytest.raises(SystemExit):
        train_options("--networks", "vgg")
    assert "unknown network 'vgg': known are resnet50, densenet161" in capsys.readouterr().err


@pytest.fixture
def serve_options(monkeypatch: pytest.MonkeyPatch) -> Callable[..., serve.Options]:
    """The options of `serve` that a command line becomes."""

    def run(*argv: str) -> serve.Options:
        calls: list[serve.Options] = []
        monkeypatch.setattr(serve, "serve", calls.append)
        assert client_line.main(["serve", *argv]) == 0
        (options,) = calls
        return options

    return run


def test_serve_has_an_option_for_every_field(serve_options: Callable[..., serve.Options]) -> None:
    assert SERVE.keys() == {field.name for field in fields(serve.Options)}
    assert serve_options() == serve.Options()
    for name, (argv, value) in SERVE.items():
        assert serve_options(*argv.split()) == serve.Options(**{name: value})  # type: ignore[arg-type]


def test_predict_and_score_have_an_option_for_every_field_of_the_question(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = ["--state", str(tmp_path)]
    questions: list[predict.Question] = []

    def record(*values: object) -> int:
        question = values[-1]
        assert isinstance(question, predict.Question)
        questions.append(question)
        return 0

    monkeypatch.setattr(predict, "predict", record)
    monkeypatch.setattr(score, "score", record)
    assert PREDICT.keys() == {field.name for field in fields(predict.Question)} - {"server"}
    for verb, options in (("predict", PREDICT), ("score", SCORE)):
        assert client_line.main([verb, "x", *state]) == 0
        assert questions[-1] == predict.Question()
        for name, (argv, value) in options.items():
            assert client_line.main([verb, "x", *state, *argv.split()]) == 0
            assert questions[-1] == predict.Question(**{name: value})  # type: ignore[arg-type]
    server = ["--server", "https://a/", "--token", "t", "--authority", "p.pem"]
    assert client_line.main(["predict", "x", *state, *server]) == 0
    address = questions[-1].server
    assert (address.url, address.token, address.authority) == ("https://a", "t", "p.pem")
    with pytest.raises(SystemExit):
        client_line.main(["score", "x", "--save", "f"])
