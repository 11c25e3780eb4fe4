"""Which settings win, by numbers made by hand, and what is written of them."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import tune_server, tuning
from benchmarks.trials import Bench
from benchmarks.tuning import ITSELF, Change, Trial
from client import settings
from client.archives import Archive

CONFIG = Path(__file__).parents[1] / "config.properties"
RATE, P50 = "resnet50 requests/s", "resnet50 p50"


def a_trial(rate: list[float], p50: list[float] | None = None, label: str = "") -> Trial:
    return Trial(label, {RATE: rate, P50: p50 or [1.0, 1.0, 1.0]}, {RATE: 20.0, P50: 50.0})


QUIET = a_trial([0.99, 1.01, 1.0])
NOISY = a_trial([0.93, 1.04, 1.0])


@pytest.mark.parametrize(
    ("rate", "p50", "beside", "won"),
    [
        ([1.05, 1.06, 1.02], [1.0, 0.99, 1.0], QUIET, True),
        ([1.0, 1.0, 0.99], [1.2, 1.1, 1.3], QUIET, True),  # the other way round
        ([1.05, 1.06, 0.99], None, QUIET, False),  # not in every pair
        ([1.015, 1.018, 1.016], None, QUIET, False),  # too little to be worth a change
        ([1.05, 1.06, 1.02], None, NOISY, False),  # less than the present differs from itself
        ([1.08, 1.09, 1.05], None, NOISY, True),
        ([1.5, 1.6, 1.4], [0.91, 0.92, 0.90], QUIET, True),  # p50 longer by a tenth
        ([1.5, 1.6, 1.4], [0.90, 0.92, 0.89], QUIET, False),
        ([0.90, 0.9, 0.9], [1.5, 1.5, 1.5], QUIET, False),
        ([1.0, 1.0, 1.0], None, QUIET, False),
    ],
)
def test_a_winner_gains_more_than_the_spread_and_loses_little(
    rate: list[float], p50: list[float] | None, beside: Trial, won: bool
) -> None:
    assert tuning.wins(a_trial(rate, p50), beside) is won


def test_what_does_not_start_does_not_win() -> None:
    failed = Trial("G1", failed="does not start")
    assert not tuning.wins(failed, QUIET)
    assert "| G1 | – | – | – | does not start |" in tuning.table([failed], QUIET)


def test_every_network_counts() -> None:
    itself = Trial("", {"a p50": [1.0, 1.01], "b p50": [1.0, 1.1]})
    assert tuning.wins(Trial("", {"a p50": [1.05, 1.06], "b p50": [1.0, 1.0]}), itself)
    assert not tuning.wins(Trial("", {"a p50": [1.0, 1.0], "b p50": [1.05, 1.06]}), itself)
    assert not tuning.wins(Trial("", {"a p50": [1.3, 1.3], "b p50": [0.8, 0.8]}), itself)


def test_the_best_of_each_group_go_together() -> None:
    small, large = (Change("batch", f"{n}", {"b": f"{n}"}) for n in (2, 8))
    workers, none = Change("workers", "2", {"w": "2", "t": "1"}), Change("log", "no", {"l": "x"})
    gains = {2: [1.1, 1.2, 1.1], 8: [1.2, 1.3, 1.2]}
    tried = [
        (small, a_trial(gains[2])),
        (large, a_trial(gains[8])),
        (workers, a_trial([1.1, 1.1, 1.1])),
        (none, a_trial([1.0, 1.1, 0.9])),
    ]
    found = tuning.best(tried, QUIET)
    assert found
    assert found.values == {"b": "8", "w": "2", "t": "1"}
    # Four times as fast with one client outweighs a tenth more requests.
    assert tuning.best([*tried[1:2], (small, a_trial(gains[2], [4.0, 4.1, 4.2]))], QUIET) == Change(
        "all", "again: 2", {"b": "2"}
    )
    assert tuning.best(tried[3:], QUIET) is None


def test_what_is_so_already_is_not_tried() -> None:
    present = tuning.filled(settings.read(CONFIG, {}))
    found = tuning.changes(present, cores=2)
    tried = [
        (change.values.get(settings.BATCH_SIZE)) for change in found if change.group == "batch"
    ]
    assert sorted(map(str, tried)) == sorted({"1", "2", "4", "8"} - {present[settings.BATCH_SIZE]})
    for change in found:
        assert any(present.get(key) != value for key, value in change.values.items())
        assert len({(c.group, c.label) for c in found}) == len(found)
    everything = {**present, "async_logging": "true", settings.WORKERS: "2", settings.THREADS: "1"}
    labels = {change.label for change in tuning.changes(everything, cores=2)}
    assert "logs written by a thread of their own" not in labels
    assert {label for label in labels if label.startswith("workers")} == {
        "workers: 1, threads each: 2",
        "workers: 2, threads each: 2",
    }


def test_one_core_is_not_divided() -> None:
    found = tuning.changes(tuning.filled({}), cores=1)
    assert [c.values for c in found if c.group == "workers"] == [
        {settings.WORKERS: "2", settings.THREADS: "1"}
    ]


def test_options_of_java_are_changed_where_they_stand() -> None:
    java = "-Xmx768m -XX:MaxDirectMemorySize=384m -XX:+UseSerialGC --enable"
    found = {
        c.label: c.values["vmargs"]
        for c in tuning.changes({"vmargs": java}, 2)
        if "Java" in c.label
    }
    assert "Java: SerialGC" not in found
    assert found["Java: G1GC"] == java.replace("Serial", "G1")
    assert found["Java: 1.5 GB of heap"] == java.replace("768m", "1536m").replace("384m", "768m")
    assert found["Java: its first compiler alone"] == f"{java} -XX:TieredStopAtLevel=1"


def test_writing_keeps_comments_and_all_other_lines() -> None:
    text = "# a comment: size=1\n\nsize=4\n  delay = 1\n#threads=2\nname=a=b"
    written = tuning.written(text, {"size": "8", "delay": "5", "threads": "1"})
    assert written == (
        "# a comment: size=1\n\nsize=8\ndelay=5\n#threads=2\nname=a=b\n"
        "\n# Found by make tune-server.\nthreads=1\n"
    )
    assert tuning.written(written, {"threads": "3"}) == written.replace("threads=1", "threads=3")


def test_the_servers_own_file_changes_in_the_written_lines_alone(tmp_path: Path) -> None:
    values = {settings.BATCH_SIZE: "16", "vmargs": "-Xmx1g -Dx=y"}
    before = CONFIG.read_text()
    config = tmp_path / "config.properties"
    config.write_text(tuning.written(before, values))
    pairs = zip(before.splitlines(), config.read_text().splitlines(), strict=True)
    assert {new for old, new in pairs if old != new} == {
        f"{settings.BATCH_SIZE}=16",
        "vmargs=-Xmx1g -Dx=y",
    }
    assert settings.read(config, {})["vmargs"] == "-Xmx1g -Dx=y"


# From what was measured to the file


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / "a.jpeg")
    (tmp_path / "config.properties").write_text(CONFIG.read_text())
    words = ["--images", tmp_path / "images", "--config", tmp_path / "config.properties"]
    words += ["--state", tmp_path, "--model-store", tmp_path, "--groups", "netty", "log"]
    return tune_server.parse([str(word) for word in words])


def measured(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, again: list[float] | None
) -> None:
    """Trials as if they had been made: `netty` wins, `log` does not."""
    packed = [Archive(options.state / "none.mar", "resnet50", "1.0", "abc")]
    monkeypatch.setattr(tune_server, "to_measure", lambda *_: packed)
    bench = Bench(options, packed)
    log, netty = sorted(
        (c for c in tuning.changes(bench.present, 2) if c.group in options.groups),
        key=lambda change: change.group,
    )
    together = Change("all", f"again: {netty.label}", netty.values)
    known = [(ITSELF, QUIET), (log, a_trial([1.0] * 3)), (netty, a_trial([1.1, 1.2, 1.1]))]
    if again:
        known.append((together, a_trial(again)))
    lines = [{"key": bench.key(c), "trial": asdict(t)} for c, t in known]
    bench.file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_what_wins_again_is_written(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(options, monkeypatch, [1.2, 1.1, 1.1])
    assert tune_server.tune(options) == 0
    text = options.config.read_text()
    assert text.startswith(CONFIG.read_text())
    assert text.endswith("\n# Found by make tune-server.\nnumber_of_netty_threads=1\n")
    printed = capsys.readouterr().out
    assert "number_of_netty_threads: left out → 1" in printed
    assert "1.100 (1.100 to 1.200)" in printed


def test_what_does_not_win_again_is_not_written(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(options, monkeypatch, [1.2, 1.1, 0.99])
    assert tune_server.tune(options) == 0
    assert options.config.read_text() == CONFIG.read_text()
    assert "stays as it is" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(options, monkeypatch, [1.2, 1.1, 1.1])
    options.dry_run = True
    assert tune_server.tune(options) == 0
    assert options.config.read_text() == CONFIG.read_text()
    assert "left out → 1" in capsys.readouterr().out


def test_before_all_is_measured_nothing_is_said(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(options, monkeypatch, None)
    options.most = 0
    assert tune_server.tune(options) == 0
    assert options.config.read_text() == CONFIG.read_text()
    assert capsys.readouterr().out.endswith("the same command goes on\n")


def test_trials_of_other_settings_do_not_count(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(options, monkeypatch, None)
    packed = [Archive(options.state / "none.mar", "resnet50", "1.0", "abc")]
    options.most = 0
    assert Bench(options, packed).trial(ITSELF) == QUIET
    options.config.write_text(tuning.written(CONFIG.read_text(), {settings.BATCH_SIZE: "5"}))
    assert Bench(options, packed).trial(ITSELF) is None


def test_a_setting_of_the_environment_would_hide_what_is_tried(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PNEUMOCAM_THREADS", "1")
    assert tune_server.main(["--state", str(options.state)]) == 1
    assert "unset it" in capsys.readouterr().err
