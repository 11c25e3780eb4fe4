"""TorchServe's tokens: read from its file, renewed over loopback without a proxy."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client import api, tokens, transport
from client.tokens import TokenError
from tests.client.local_server import free_port, local_server


def write_keys(folder: Path, key: str, minutes: int) -> Path:
    """A file of keys as TorchServe writes it; those for inference and management expire."""
    expiry = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
    timed = {"key": key, "expiration time": f"{expiry[:19]}.123456789Z"}
    file = folder / tokens.FILE
    file.write_text(json.dumps({"API": {"key": "api"}, "inference": timed, "management": timed}))
    return file


def test_a_valid_token_is_read_without_a_request(tmp_path: Path) -> None:
    file = write_keys(tmp_path, "valid", 30)
    management = f"http://127.0.0.1:{free_port()}"
    assert tokens.read(file, tokens.INFERENCE, management) == "valid"
    address = api.Address(management, tokens.MANAGEMENT, keys=str(file))
    assert address.headers() == {"Authorization": "Bearer valid"}


@pytest.mark.parametrize("proxy", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_an_expired_token_is_renewed_without_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    file = write_keys(tmp_path, "expired", -30)
    requests: list[str] = []
    leaked: list[str] = []

    def renew(request: str) -> tuple[int, bytes]:
        requests.append(request)
        write_keys(tmp_path, "renewed", 30)
        return 200, b"{}"

    def leak(request: str) -> tuple[int, bytes]:
        leaked.append(request)
        return 502, b""

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with local_server(renew) as management, local_server(leak) as outside:
        monkeypatch.setenv(proxy, outside)
        assert tokens.read(file, tokens.MANAGEMENT, management) == "renewed"
    assert requests == ["GET /token?type=management HTTP/1.1"]
    assert leaked == []


def test_errors_of_a_renewal(tmp_path: Path) -> None:
    file = write_keys(tmp_path, "expired", -30)
    with (
        local_server(lambda _request: (400, b'{"message": "invalid key"}')) as management,
        pytest.raises(TokenError, match=r"issues no new token \(400: invalid key\): restart"),
    ):
        tokens.read(file, tokens.INFERENCE, management)
    with pytest.raises(transport.NoServerError, match="start it with make serve"):
        tokens.read(file, tokens.INFERENCE, f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("content", [None, "{"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / tokens.FILE).write_text(content)
    with pytest.raises(TokenError, match=r"key_file\.json can't be read .*--token"):
        tokens.read(tmp_path / tokens.FILE, tokens.INFERENCE, "http://127.0.0.1:1")
