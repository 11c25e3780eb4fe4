"""Live requests, copied to a candidate by the worker that answers them, and their comparison."""

import json
import time
from pathlib import Path

from tqdm import tqdm

from client.api import Address
from client.gate import Check, Compared, GateError, Limits

FOLDER = "shadow"  # in the state folder; PNEUMOCAM_SHADOW tells the workers
LATE = 2.0  # seconds that the last copies have


def compare(
    folder: Path, network: str, versions: tuple[str, str], inference: Address, seconds: float
) -> Compared:
    """Copy the first version's requests to the second for so long.

    Raises GateError where none came.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order, answers = folder / f"{network}.json", folder / f"{network}.jsonl"
    answers.unlink(missing_ok=True)
    before, after = versions
    _write(
        order,
        {
            "from": before,
            "to": after,
            "until": time.time() + seconds,
            "inference": inference.url,
            "headers": inference.headers(),
            "authority": inference.authority and str(Path(inference.authority).resolve()),
        },
    )
    try:
        for _ in tqdm(range(steps := max(1, round(seconds))), desc="shadow", disable=None):
            time.sleep(seconds / steps)
    finally:
        order.unlink()
    time.sleep(LATE)
    lines = answers.read_text().splitlines() if answers.is_file() else []
    answers.unlink(missing_ok=True)
    return _compared([json.loads(line) for line in lines], network, seconds)


def _write(path: Path, order: dict[str, object]) -> None:
    side = path.with_suffix(".part")
    side.touch(mode=0o600)  # it may hold a token
    side.write_text(json.dumps(order))
    side.rename(path)


def _compared(lines: list[dict[str, object]], network: str, seconds: float) -> Compared:
    if not lines:
        raise GateError(
            f"{network} was asked nothing in {seconds:.0f} s, so nothing could be compared: "
            "a longer --shadow, or none"
        )
    pairs = [(line, line["candidate"]) for line in lines]
    answered = [(a, b) for a, b in pairs if isinstance(b, dict) and "error" not in b]
    apart = [abs(float(str(a["probability"])) - float(b["probability"])) for a, b in answered]
    changed = sum(a["label"] != b["label"] for a, b in answered)
    return Compared(
        requests=len(lines),
        changed_labels=changed / max(len(answered), 1),
        difference=sum(apart) / max(len(apart), 1),
        errors=len(lines) - len(answered),
    )


def checks(found: Compared, allowed: Limits) -> list[Check]:
    """The limits that hold for live requests too."""
    return [
        Check(f"shadow {name}", value, float(limit), value <= limit + 1e-12)
        for name, value, limit in (
            ("changed_labels", found.changed_labels, allowed.changed_labels),
            ("errors", float(found.errors), allowed.errors),
        )
    ]
