"""The command line: errors without a traceback, and unknown names."""

from pathlib import Path

import pytest

from train.__main__ import main


def test_errors_are_logged_without_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", "nowhere"]) == 1
    assert "DATA=nowhere: there is no such folder" in caplog.text
    assert main(["archive"]) == 1
    assert "train one with make train" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "listed"),
    [
        (["--networks", "alexnet"], "resnet50, densenet161"),
        (["--preset", "slow"], "quick"),
        (["--judge", "nobody"], "validation"),
    ],
)
def test_unknown_names_list_the_choices(
    arguments: list[str], listed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", *arguments])
    assert listed in capsys.readouterr().err
