"""Which settings win, by figures made by hand, and what is written to the file."""

import argparse
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.serving import tune_server
from benchmarks.serving.tune_server import Gains, Values, combine, update, wins
from client import api, archives, settings
from client.archives import ENSEMBLE, Archive

CONFIG = Path(__file__).parents[2] / "config.properties"
RATE, P50 = "resnet50 requests/s", "resnet50 p50"


def gains(rate: list[float], p50: list[float] | None = None) -> Gains:
    return {RATE: rate, P50: p50 or [1.0, 1.0, 1.0]}


QUIET = gains([0.99, 1.01, 1.0])
NOISY = gains([0.93, 1.04, 1.0])


@pytest.mark.parametrize(
    ("rate", "p50", "baseline", "winner"),
    [
        ([1.05, 1.06, 1.02], [1.0, 0.99, 1.0], QUIET, True),
        ([1.0, 1.0, 0.99], [1.2, 1.1, 1.3], QUIET, True),  # p50 instead of the rate
        ([1.05, 1.06, 0.99], None, QUIET, False),  # not in every pair
        ([1.015, 1.018, 1.016], None, QUIET, False),  # less than 2%
        ([1.05, 1.06, 1.02], None, NOISY, False),  # less than the baseline differs from 1
        ([1.08, 1.09, 1.05], None, NOISY, True),
        ([1.5, 1.6, 1.4], [0.91, 0.92, 0.90], QUIET, True),  # p50 longer by a tenth
        ([1.5, 1.6, 1.4], [0.90, 0.92, 0.89], QUIET, False),
        ([0.90, 0.9, 0.9], [1.5, 1.5, 1.5], QUIET, False),
        ([1.0, 1.0, 1.0], None, QUIET, False),
    ],
)
def test_a_winner_gains_more_than_the_spread_and_loses_little(
    rate: list[float], p50: list[float] | None, baseline: Gains, winner: bool
) -> None:
    assert wins(gains(rate, p50), baseline) is winner


def test_a_failed_change_does_not_win() -> None:
    assert not wins({}, QUIET)
    assert "| a=b | – | – | failed |" in tune_server.table([({"a": "b"}, {})], QUIET)


def test_every_network_counts() -> None:
    baseline = {"a p50": [1.0, 1.01], "b p50": [1.0, 1.1]}
    assert wins({"a p50": [1.05, 1.06], "b p50": [1.0, 1.0]}, baseline)
    assert not wins({"a p50": [1.0, 1.0], "b p50": [1.05, 1.06]}, baseline)
    assert not wins({"a p50": [1.3, 1.3], "b p50": [0.8, 0.8]}, baseline)


def test_the_best_values_are_combined() -> None:
    small, large, workers, log = {"b": "2"}, {"b": "8"}, {"w": "2", "t": "1"}, {"l": "x"}
    trials: list[tuple[Values, Gains]] = [
        (small, gains([1.1, 1.2, 1.1])),
        (large, gains([1.2, 1.3, 1.2])),
        (workers, gains([1.1, 1.1, 1.1])),
        (log, gains([1.0, 1.1, 0.9])),
    ]
    assert combine(trials, QUIET) == {"b": "8", "w": "2", "t": "1"}
    assert combine(trials[::-1], QUIET) == {"b": "8", "w": "2", "t": "1"}
    # Four times as fast with one client outweighs a tenth more requests.
    fast = (small, gains([1.1, 1.2, 1.1], [4.0, 4.1, 4.2]))
    assert combine([trials[1], fast], QUIET) == combine([fast, trials[1]], QUIET) == {"b": "2"}
    assert combine(trials[3:], QUIET) == {}


def test_current_values_are_not_tried() -> None:
    current = settings.read(CONFIG, {})
    changes = tune_server.changes(current, cores=2)
    tried = {change[settings.BATCH_SIZE] for change in changes if settings.BATCH_SIZE in change}
    assert tried == {"1", "2", "4", "8"} - {current[settings.BATCH_SIZE]}
    for change in changes:
        assert any(current.get(key) != value for key, value in change.items())
        assert changes.count(change) == 1
    everything = {**current, "async_logging": "true", settings.WORKERS: "2", settings.THREADS: "1"}
    changes = tune_server.changes(everything, cores=2)
    assert not any("async_logging" in change for change in changes)
    workers = [
        (change[settings.WORKERS], change[settings.THREADS])
        for change in changes
        if settings.WORKERS in change
    ]
    assert workers == [("1", "2"), ("2", "2")]


def test_default_values_are_not_tried() -> None:
    changes = tune_server.changes({}, cores=1)
    assert {settings.BATCH_SIZE: str(api.BATCH_SIZE)} not in changes
    assert {settings.MAX_BATCH_DELAY: str(api.MAX_BATCH_DELAY_MS)} not in changes
    # One core can't be divided between workers.
    assert [change for change in changes if settings.WORKERS in change] == [
        {settings.WORKERS: "2", settings.THREADS: "1"}
    ]


@pytest.mark.parametrize(
    ("store", "networks", "chosen"),
    [
        (["a", "b", ENSEMBLE], None, ["a", "b"]),
        (["a", "b", ENSEMBLE], ["a", "b"], ["a", "b"]),
        (["a", "b", ENSEMBLE], ["a", ENSEMBLE], ["a", ENSEMBLE]),
        ([ENSEMBLE], None, [ENSEMBLE]),
    ],
)
def test_the_ensemble_is_measured_by_name_or_alone(
    store: list[str],
    networks: list[str] | None,
    chosen: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for network, version in product(store, ("1.0", "2.0")):
        (tmp_path / f"{network}-{version}.mar").touch()

    def read(path: Path) -> Archive:
        network, version = path.stem.split("-")
        return Archive(path, network, version, "abc")

    monkeypatch.setattr(archives, "read", read)
    archived = tune_server.newest(tmp_path, networks)
    assert [archive.network for archive in archived] == chosen
    assert {archive.version for archive in archived} == {"2.0"}


def test_writing_keeps_comments_and_unchanged_lines() -> None:
    text = "# a comment: size=1\n\nsize=4\n  delay = 1\n#threads=2\nname=a=b"
    updated = update(text, {"size": "8", "delay": "5", "threads": "1"})
    assert updated == (
        "# a comment: size=1\n\nsize=8\ndelay=5\n#threads=2\nname=a=b\n"
        "\n# Found by make tune-server.\nthreads=1\n"
    )
    assert update(updated, {"threads": r"\1"}) == updated.replace("threads=1", r"threads=\1")


def test_the_configuration_changes_only_in_the_written_lines(tmp_path: Path) -> None:
    values = {settings.BATCH_SIZE: "16", "vmargs": "-Xmx1g -Dx=y"}
    before = CONFIG.read_text()
    config = tmp_path / "config.properties"
    config.write_text(update(before, values))
    pairs = zip(before.splitlines(), config.read_text().splitlines(), strict=True)
    assert {new for old, new in pairs if old != new} == {
        f"{settings.BATCH_SIZE}=16",
        "vmargs=-Xmx1g -Dx=y",
    }
    assert settings.read(config, {})["vmargs"] == "-Xmx1g -Dx=y"


# From measured gains to the file

NETTY = {"number_of_netty_threads": "1"}


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / "a.jpeg")
    (tmp_path / "config.properties").write_text(CONFIG.read_text())
    words = ["--images", tmp_path / "images", "--config", tmp_path / "config.properties"]
    words += ["--state", tmp_path, "--model-store", tmp_path]
    return tune_server.parse([str(word) for word in words])


@pytest.fixture
def tune(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """A function that tunes with gains of NETTY made by hand and returns what is printed."""
    archive = Archive(options.state / "none.mar", "resnet50", "1.0", "abc")
    monkeypatch.setattr(tune_server, "newest", lambda *_: [archive])

    def run(first: list[float], again: list[float]) -> str:
        rates = iter([first, again])

        def measure(change: Mapping[str, str], *_: object) -> Gains:
            return gains(next(rates)) if change == NETTY else QUIET

        monkeypatch.setattr(tune_server, "measure", measure)
        tune_server.tune(options)
        return capsys.readouterr().out

    return run


def test_a_change_that_wins_twice_is_written(
    options: argparse.Namespace, tune: Callable[..., str]
) -> None:
    printed = tune([1.1, 1.2, 1.1], [1.2, 1.1, 1.1])
    text = options.config.read_text()
    assert text.startswith(CONFIG.read_text())
    assert text.endswith("\n# Found by make tune-server.\nnumber_of_netty_threads=1\n")
    assert "number_of_netty_threads: default → 1" in printed
    assert printed.count("1.100 (1.100 to 1.200)") == 2  # both measurements


@pytest.mark.parametrize("first", [[1.1, 1.2, 1.1], [1.1, 1.2, 0.99]])
def test_a_change_that_loses_once_is_not_written(
    options: argparse.Namespace, tune: Callable[..., str], first: list[float]
) -> None:
    assert "is unchanged" in tune(first, [1.2, 1.1, 0.99])
    assert options.config.read_text() == CONFIG.read_text()


def test_a_dry_run_writes_nothing(options: argparse.Namespace, tune: Callable[..., str]) -> None:
    options.dry_run = True
    assert "default → 1" in tune([1.1, 1.2, 1.1], [1.2, 1.1, 1.1])
    assert options.config.read_text() == CONFIG.read_text()


@pytest.mark.usefixtures("tune")
def test_current_settings_that_fail_are_an_error(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_server, "measure", lambda *_: {})
    with pytest.raises(settings.StartError, match="current settings"):
        tune_server.tune(options)


def test_a_variable_that_overrides_the_settings_is_an_error(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PNEUMOCAM_THREADS", "1")
    assert tune_server.main(["--state", str(options.state)]) == 1
    assert "unset it" in capsys.readouterr().err
