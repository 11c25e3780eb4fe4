"""The verb `predict`: images go to a running server, a table and overlays come back."""

import base64
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arguments import option
from client import api, tokens
from handlers import files

PICTURES = {".dcm", ".jpeg", ".jpg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}

# While one image is in the network, the next ones travel.
IN_FLIGHT = 4
# A full queue (503) empties within seconds: tries after 0.25, 0.5, 1, 2 and 4 s.
WAITS = (0.25, 0.5, 1.0, 2.0, 4.0)

HERE = api.Address("http://127.0.0.1:8080", tokens.INFERENCE)
ANSWERED, REFUSED, NO_SERVER = 0, 1, 2


@dataclass(frozen=True)
class Question:
    """What every image is asked."""

    server: api.Address = HERE
    network: str = option("resnet50", "(%(default)s)")
    version: str | None = option(None, "one version (the network's default)")
    operating_point: str | None = option(None, "a name from the card (the card's default)")
    of_class: str | None = option(None, "whose map: predicted, NORMAL or PNEUMONIA", name="--class")
    save: Path | None = option(None, "save overlays there as PNG", metavar="FOLDER")


@dataclass(frozen=True)
class Image:
    """One file, and the name it has in the table and among the overlays."""

    path: Path
    name: str


def images(paths: list[Path]) -> list[Image]:
    """The files named, and every picture under the folders named, sorted.

    A file that is named goes to the server whatever its suffix: the server judges it.
    """
    found = []
    for path in paths:
        if path.is_dir():
            pictures = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in PICTURES]
            found += [Image(p, str(p.relative_to(path))) for p in pictures]
        else:
            found.append(Image(path, path.name))
    return found


def predict(paths: list[Path], question: Question) -> int:
    """Print a row for each image; 0: all answered, 1: some were not, 2: no server is there."""
    asked = images(paths)
    if not asked:
        print(f"no pictures in {', '.join(map(str, paths))}", file=sys.stderr)
        return REFUSED
    width = min(60, max(len(image.name) for image in asked))
    refused, warnings = 0, dict[str, None]()
    try:
        for image, answer in _answers(asked, question):
            if image is asked[0]:
                print(
                    f"{'image':<{width}}  {'label':<10}{'P(PNEUMONIA)':>12}{'threshold':>11}  model"
                )
            if isinstance(answer, str):
                refused += 1
                print(f"{image.name:<{width}}  refused: {answer}", flush=True)
            else:
                print(f"{image.name:<{width}}  {row(answer)}", flush=True)
                warnings |= dict.fromkeys(answer["warnings"])
    except api.NoServerError as error:
        print(f"error: {error}", file=sys.stderr)
        return NO_SERVER
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if refused:
        print(f"{refused} of {len(asked)} refused", file=sys.stderr)
    return REFUSED if refused else ANSWERED


def row(answer: dict[str, Any]) -> str:
    """One answer in the columns of the table."""
    return (
        f"{answer['label']:<10}{answer['probability']['PNEUMONIA']:>12.4f}"
        f"{answer['threshold']:>11.4f}"
        f"  {answer['model']}/{answer['version']}"
    )


def _answers(
    asked: list[Image], question: Question
) -> Iterator[tuple[Image, dict[str, Any] | str]]:
    """Each image, in order, with its answer or with why there is none."""
    names = overlay_names(asked)

    def one(image: Image) -> dict[str, Any] | str:
        try:
            answer = ask(image.path.read_bytes(), question)
        except OSError as error:
            return str(error.strerror or error)
        except api.ServerError as error:
            return f"{error} ({error.code})"
        if question.save:
            save_overlay(answer, question.save / names[image])
        return answer

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        try:
            yield from zip(asked, pool.map(one, asked), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def ask(content: bytes, question: Question) -> dict[str, Any]:
    """The server's answer to one image. Raises ServerError, or NoServerError.

    Asked on `/predict`, the road on which TorchServe passes a query on to the handler.
    """
    version = f"/{question.version}" if question.version else ""
    path = f"/{question.network}{version}/predict"
    query = {
        "heatmap": "overlay" if question.save else "none",
        "class": question.of_class,
        "operating_point": question.operating_point,
    }
    headers = {"Content-Type": "application/octet-stream"}
    for wait in (*WAITS, None):
        try:
            answer = api.call("POST", question.server, path, headers, params=query, data=content)
            return dict(answer.json())
        except api.ServerError as error:
            if error.code != 503 or wait is None:
                raise
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def save_overlay(answer: dict[str, Any], path: Path) -> None:
    """Write the answer's overlay as a PNG."""
    with files.replacing(path) as partial:
        partial.write_bytes(base64.b64decode(answer["heatmap"]["overlay"]))


def overlay_names(asked: list[Image]) -> dict[Image, str]:
    """A file name for each image's overlay, no two alike: x.jpeg.png, x.jpeg-2.png."""
    names: dict[Image, str] = {}
    taken: set[str] = set()
    for image in asked:
        name, number = f"{image.name}.png", 1
        while name in taken:
            number += 1
            name = f"{image.name}-{number}.png"
        taken.add(name)
        names[image] = name
    return names
