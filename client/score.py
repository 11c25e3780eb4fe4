"""The verb `score`: a folder of many images → a table of answers, which goes on where it was."""

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
# As many as a batch holds, and as many again on their way.
IN_FLIGHT = 8


class ScoreError(Exception):
    """The table can't be written there, with the remedy."""


def score(folder: Path, out: Path, question: Question) -> int:
    """Write a row for each picture below a folder; 0: all answered, 1: some were refused.

    Rows that hold an answer are kept, and their images not asked again; those that hold an error
    are. Every answer is in the file as soon as it is there.

    Raises NoServerError, and what is done is kept; ScoreError where `out` is another table.
    """
    asked = predict.images([folder])
    if not asked:
        print(f"no pictures in {folder}", file=sys.stderr)
        return predict.REFUSED
    answered = _answered(out, question.network)
    left = [image for image in asked if image.name not in answered]
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
    for name, why in sorted(refused.items()):
        print(f"refused: {name}: {why}", file=sys.stderr)
    print(f"{out}: {len(answered) + len(left) - len(refused)} answered, {len(refused)} refused")
    return predict.REFUSED if refused else predict.ANSWERED


def _answered(out: Path, network: str) -> dict[str, dict[str, str]]:
    """Rows of an earlier run that hold an answer, by file."""
    if not out.is_file():
        return {}
    with out.open(newline="") as file:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ()) != COLUMNS:
            raise ScoreError(f"{out} is no table of scores: name another file with --out")
        # A line that was cut short has no last column.
        rows = {row["file"]: row for row in table if row["error"] == ""}
    others = {row["model"] for row in rows.values()} - {network}
    if others:
        raise ScoreError(f"{out} holds answers of {', '.join(others)}: name another with --out")
    return rows


def _rewrite(out: Path, rows: list[dict[str, str]]) -> None:
    with files.replacing(out) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _rows(images: list[Image], question: Question) -> Iterator[dict[str, Any]]:
    """Rows in the order in which answers come, a few images on their way at a time."""
    todo = iter(images)
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        under_way: set[Future[dict[str, Any]]] = set()
        try:
            while True:
                for image in todo:
                    under_way.add(pool.submit(_row, image, question))
                    if len(under_way) == IN_FLIGHT:
                        break
                if not under_way:
                    return
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for one in done:
                    yield one.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _row(image: Image, question: Question) -> dict[str, Any]:
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
