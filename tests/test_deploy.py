"""What lies beside the server loads, and names only what the server tells."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"


def declared() -> set[str]:
    metrics = yaml.safe_load((DEPLOY / "metrics.yaml").read_text())
    sections = [*metrics["ts_metrics"].items(), *metrics["model_metrics"].items()]
    names: set[str] = set()
    for kind, entries in sections:
        for entry in entries:
            name = entry["name"]
            names |= (
                {f"{name}_{end}" for end in ("bucket", "sum", "count")}
                if kind == "histogram"
                else {name}
            )
    return names


def named(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:pneumocam_|Requests|ts_)\w+", expression))


def test_every_alert_is_of_something_that_is_told() -> None:
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = [rule for group in groups for rule in group["rules"]]
    found = set()
    for rule in rules:
        assert rule["annotations"]["summary"].endswith((".", "?")), rule
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["expr"].count("(") == rule["expr"].count(")")
        found |= named(rule["expr"])
    assert found <= declared()
    for what in ("brightness_drift", "probability_drift", "refusals", "network_seconds_bucket"):
        assert f"pneumocam_{what}" in found


def test_every_panel_is_of_something_that_is_told() -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text())
    expressions = [t["expr"] for panel in board["panels"] for t in panel["targets"]]
    found = set().union(*map(named, expressions))
    assert found <= declared()
    assert all(named(expression) for expression in expressions)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    told = {name for name in declared() if name.startswith("pneumocam_")}
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in found}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in told} - shown <= {
        "pneumocam_overlay_seconds"
    }


def test_prometheus_asks_where_the_server_tells() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    assert f"metrics_address=http://{target}" in (DEPLOY.parent / "config.properties").read_text()
    assert (DEPLOY / config["rule_files"][0]).is_file()
