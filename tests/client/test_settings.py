"""The settings of TorchServe: ports, addresses and counts."""

from pathlib import Path

import pytest

from client import settings
from client.settings import StartError

CONFIG = Path(__file__).parents[2] / "config.properties"


def test_the_settings_bind_to_loopback_only() -> None:
    values = settings.read(CONFIG, {})
    assert settings.ports_of(values) == {
        "inference": 8080,
        "management": 8081,
        "metrics": 8082,
        "grpc-inference": 7070,
        "grpc-management": 7071,
    }
    assert values["max_request_size"] == str(64 * 2**20)
    assert values["disable_token_authorization"] == values["enable_model_api"] == "true"


def test_port_options_override_the_file() -> None:
    values = settings.read(CONFIG, {"inference": 9001, "grpc-management": 9002})
    assert values["inference_address"] == "http://127.0.0.1:9001"
    assert settings.ports_of(values)["grpc-management"] == 9002


@pytest.mark.parametrize(
    "line",
    [
        "inference_address=http://0.0.0.0:8080",
        "management_address=http://10.0.0.1:8081",
        "grpc_inference_address=0.0.0.0",
    ],
)
def test_an_open_address_is_refused(tmp_path: Path, line: str) -> None:
    config = tmp_path / "config.properties"
    config.write_text(f"{CONFIG.read_text()}\n{line}\n")
    with pytest.raises(StartError, match=r"open to other machines.*Name 127\.0\.0\.1"):
        settings.read(config, {})


def test_a_missing_address_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text("inference_address=http://127.0.0.1:8080\n")
    with pytest.raises(StartError, match="management_address"):
        settings.read(config, {})


@pytest.mark.parametrize("line", ["pneumocam_batch_size=0", "pneumocam_threads=two"])
def test_counts_are_whole_numbers_above_zero(tmp_path: Path, line: str) -> None:
    config = tmp_path / "config.properties"
    config.write_text(f"{CONFIG.read_text()}\n{line}\n")
    with pytest.raises(StartError, match=f"{line}.*whole number above 0"):
        settings.read(config, {})


def test_a_missing_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="--config"):
        settings.read(tmp_path / "config.properties", {})
