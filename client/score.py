"""The verb `score`: write a table of the answers to many images, resumable."""

import csv
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from client import api, predict
from client.predict import Image, Question
from handlers import files

COLUMNS = (
    "file", "label", "probability", "threshold", "operating_point", "model", "version", "triage",
    "warnings", "error",
)  # fmt: skip
# Requests under way: a batch in the network, and the next one waiting.
CONCURRENCY = 8


class ScoreError(Exception):
    """The table can't be written to this file; the message says the remedy."""


def score(folder: Path, out: Path, question: Question) -> int:
    """Write a row for each image below a folder; 0: all were answered, 1: some were refused.

    Rows of an earlier run are kept if they hold an answer; images whose row holds an error are
    sent again. Each row is written as soon as its answer arrives.

    Raises:
        NoServerError: no server answers; the rows so far are kept.
        ScoreError: `out` is not a table of this network's answers.
    """
    images = predict.images([folder])
    if not images:
        print(f"no images in {folder}", file=sys.stderr)
        return predict.REFUSED
    answered = _answered(out, question.network)
    left = [image for image in images if image.name not in answered]
    if answered:
        print(f"{len(answered)} are in {out} already, {len(left)} to go", file=sys.stderr)
    _rewrite(out, list(answered.values()))
    refused = {}
    with (
        out.open("a", newline="") as file,
        tqdm(total=len(left), unit=" images", disable=None) as bar,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        for row in _rows(left, replace(question, save=None)):
            writer.writerow(row)
            file.flush()
            bar.update()
            if row["error"]:
                refused[row["file"]] = row["error"]
    for name, reason in sorted(refused.items()):
        print(f"refused: {name}: {reason}", file=sys.stderr)
    print(f"{out}: {len(answered) + len(left) - len(refused)} answered, {len(refused)} refused")
    return predict.REFUSED if refused else predict.ANSWERED


def _answered(out: Path, network: str) -> dict[str, dict[str, str]]:
    """The rows of an earlier run that hold an answer, by file."""
    if not out.is_file():
        return {}
    with out.open(newline="") as file:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ()) != COLUMNS:
            raise ScoreError(f"{out} is no table of scores: name another file with --out")
        # A row that was cut short by an interruption lacks the last column, `error`.
        rows = {row["file"]: row for row in table if row["error"] == ""}
    networks = {row["model"] for row in rows.values()} - {network}
    if networks:
        raise ScoreError(
            f"{out} holds answers of {', '.join(networks)}: name another file with --out"
        )
    return rows


def _rewrite(out: Path, rows: list[dict[str, str]]) -> None:
    with files.replacing(out) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _rows(images: list[Image], question: Question) -> Iterator[dict[str, Any]]:
    """Rows in the order in which the answers arrive, CONCURRENCY requests at a time."""
    remaining = iter(images)
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        pending: set[Future[dict[str, Any]]] = set()
        try:
            while True:
                for image in remaining:
                    pending.add(pool.submit(_row, image, question))
                    if len(pending) == CONCURRENCY:
                        break
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _row(image: Image, question: Question) -> dict[str, Any]:
    """The row of one image, with an answer or an error."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"file": image.name}
    try:
        answer = predict.ask(image.path.read_bytes(), question)
    except OSError as error:
        return row | {"error": str(error.strerror or error)}
    except api.ServerError as error:
        return row | {"error": f"{error} ({error.code})"}
    return row | {
        "label": answer["label"],
        "probability": answer["probability"]["PNEUMONIA"],
        "threshold": answer["threshold"],
        "operating_point": answer["operating_point"],
        "model": answer["model"],
        "version": answer["version"],
        "triage": answer.get("triage", {}).get("decision", ""),
        "warnings": "; ".join(answer["warnings"]),
    }
