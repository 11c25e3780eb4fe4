"""The files of deploy/ for Prometheus and Grafana use only metrics that the server reports."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"


def declared() -> set[str]:
    """The names of the samples that deploy/metrics.yaml declares."""
    metrics = yaml.safe_load((DEPLOY / "metrics.yaml").read_text())
    sections = [*metrics["ts_metrics"].items(), *metrics["model_metrics"].items()]
    names: set[str] = set()
    for kind, declarations in sections:
        for declaration in declarations:
            name = declaration["name"]
            names |= (
                {f"{name}_{end}" for end in ("bucket", "sum", "count")}
                if kind == "histogram"
                else {name}
            )
    return names


def metrics_in(expression: str) -> set[str]:
    """The names of the samples in a PromQL expression."""
    return set(re.findall(r"\b(?:pneumocam_|Requests|ts_)\w+", expression))


def base(sample: str) -> str:
    """The name of a sample's metric."""
    return re.sub("_(bucket|sum|count)$", "", sample)


def test_every_alert_uses_declared_metrics() -> None:
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = [rule for group in groups for rule in group["rules"]]
    used = set()
    for rule in rules:
        assert rule["annotations"]["summary"].endswith((".", "?")), rule
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["expr"].count("(") == rule["expr"].count(")")
        used |= metrics_in(rule["expr"])
    assert used <= declared()
    for name in ("brightness_drift", "probability_drift", "refusals", "network_seconds_bucket"):
        assert f"pneumocam_{name}" in used


def test_the_panels_show_every_declared_metric() -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    used = set().union(*map(metrics_in, expressions))
    assert used <= declared()
    assert all(metrics_in(expression) for expression in expressions)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    reported = {base(name) for name in declared() if name.startswith("pneumocam_")}
    assert reported - {base(name) for name in used} <= {"pneumocam_overlay_seconds"}


def test_prometheus_reads_the_servers_metrics_address() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    assert f"metrics_address=http://{target}" in (DEPLOY.parent / "config.properties").read_text()
    assert (DEPLOY / config["rule_files"][0]).is_file()
