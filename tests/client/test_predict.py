"""Which files are sent, the table and the overlays' names, retries and errors."""

from pathlib import Path

import pytest

from client import api, predict
from client.__main__ import main
from client.predict import Image, Question
from tests.client.local_server import Respond, free_port, local_server


def test_images_below_folders_and_any_single_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ["b.JPEG", "deep/a.png", "notes.txt"]:
        (tmp_path / name).touch()
    images = predict.images([tmp_path, tmp_path / "notes.txt"])
    assert [image.name for image in images] == ["b.JPEG", "deep/a.png", "notes.txt"]


def test_overlays_of_images_with_the_same_name_have_different_names() -> None:
    images = [Image(Path("1/x.png"), "x.png"), Image(Path("2/x.png"), "x.png")]
    assert list(predict.overlay_names(images).values()) == ["x.png.png", "x.png-2.png"]


def test_a_row_has_the_probability_of_pneumonia() -> None:
    answer = {
        "model": "resnet50",
        "version": "1.0",
        "label": "PNEUMONIA",
        "probability": {"NORMAL": 0.25, "PNEUMONIA": 0.75},
        "threshold": 0.431,
    }
    assert predict.row(answer).split() == ["PNEUMONIA", "0.7500", "0.4310", "resnet50/1.0"]


def test_without_a_server_the_error_names_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "x.png"
    image.touch()
    address = f"http://127.0.0.1:{free_port()}"
    state = ["--state", str(tmp_path / "state")]
    assert main(["predict", str(image), "--server", address, *state]) == 2
    assert "start it with make serve" in capsys.readouterr().err
    assert main(["versions", "--management", address, *state]) == 2
    assert main(["promote", "resnet50", "2.0", "--management", address, *state]) == 2
    assert main(["register", str(image), *state]) == 2
    assert main(["stop", *state]) == 0


def test_shadow_is_refused_with_the_replacements(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    promote = ["promote", "resnet50", "2.0", "--state", str(state), "--shadow", "60"]
    for options in ([], ["--replay", str(tmp_path), "--watch", "60"]):
        assert main([*promote, *options]) == 1  # not 2: refused before a server is needed
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        assert line.startswith("error: --shadow was removed")
        for name in ("--replay", "REPLAY=folder", "--watch", "WATCH=seconds"):
            assert name in line
    assert not state.exists()


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    assert predict.predict([tmp_path], Question()) == predict.REFUSED


def statuses(*codes: int) -> Respond:
    """Responses with these statuses, one after the other."""
    remaining = iter(codes)

    def respond(_request: str) -> tuple[int, bytes]:
        status = next(remaining)
        return status, b"{}" if status == 200 else b'{"message": "status %d"}' % status

    return respond


def test_a_proxy_in_the_environment_is_not_used_on_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with local_server(statuses(200)) as address:
        assert predict.ask(b"", Question(server=api.Address(address))) == {}


def test_requests_are_repeated_while_the_queue_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "RETRY_DELAYS", (0.0, 0.0))
    with local_server(statuses(503, 503, 200)) as address:
        assert predict.ask(b"", Question(server=api.Address(address))) == {}
    with (
        local_server(statuses(503, 503, 503)) as address,
        pytest.raises(api.ServerError, match="status 503"),
    ):
        predict.ask(b"", Question(server=api.Address(address)))
    with local_server(statuses(400)) as address, pytest.raises(api.ServerError, match="status 400"):
        predict.ask(b"", Question(server=api.Address(address)))
