"""The verb `predict`: send images to a running server, print a table, save overlays."""

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

SUFFIXES = {".dcm", ".jpeg", ".jpg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}

# Requests under way: the next images are sent while the network evaluates one.
CONCURRENCY = 4
# Seconds between retries while the queue is full (503): it empties within seconds.
RETRY_DELAYS = (0.25, 0.5, 1.0, 2.0, 4.0)

LOCAL = api.Address("http://127.0.0.1:8080", tokens.INFERENCE)
ANSWERED, REFUSED, NO_SERVER = 0, 1, 2  # exit statuses


@dataclass(frozen=True)
class Question:
    """The server, the network and the options of every request."""

    server: api.Address = LOCAL
    network: str = option("resnet50", "name of the network (default: %(default)s)")
    version: str | None = option(None, "one of its versions (default: the server's default)")
    operating_point: str | None = option(
        None, "name of an operating point (default: the card's default)"
    )
    of_class: str | None = option(
        None,
        "class of the map: predicted, NORMAL or PNEUMONIA (default: predicted)",
        name="--class",
    )
    save: Path | None = option(None, "folder to save overlays in, as PNG", metavar="FOLDER")


@dataclass(frozen=True)
class Image:
    """One file, and its name in the table and among the overlays."""

    path: Path
    name: str


def images(paths: list[Path]) -> list[Image]:
    """The files among `paths`, and every image below the folders among them, sorted by path.

    Below folders, an image is a file with one of SUFFIXES. A file passed by its own path is taken
    whatever its suffix, since the server checks its content.
    """
    selected = []
    for path in paths:
        if path.is_dir():
            below = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES]
            selected += [Image(file, str(file.relative_to(path))) for file in below]
        else:
            selected.append(Image(path, path.name))
    return selected


def predict(paths: list[Path], question: Question) -> int:
    """Print a row for each image; 0: all were answered, 1: some were not, 2: no server answers."""
    selected = images(paths)
    if not selected:
        print(f"no images in {', '.join(map(str, paths))}", file=sys.stderr)
        return REFUSED
    width = min(60, max(len(image.name) for image in selected))
    refused, warnings = 0, dict[str, None]()
    try:
        for image, answer in _answers(selected, question):
            if image is selected[0]:
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
        print(f"{refused} of {len(selected)} refused", file=sys.stderr)
    return REFUSED if refused else ANSWERED


def row(answer: dict[str, Any]) -> str:
    """The columns of one answer in the table."""
    return (
        f"{answer['label']:<10}{answer['probability']['PNEUMONIA']:>12.4f}"
        f"{answer['threshold']:>11.4f}"
        f"  {answer['model']}/{answer['version']}"
    )


def _answers(
    images: list[Image], question: Question
) -> Iterator[tuple[Image, dict[str, Any] | str]]:
    """Each image, in order, with the server's JSON answer, or with the reason why it has none."""
    names = overlay_names(images)

    def answer_or_reason(image: Image) -> dict[str, Any] | str:
        try:
            answer = ask(image.path.read_bytes(), question)
        except OSError as error:
            return str(error.strerror or error)
        except api.ServerError as error:
            return f"{error} ({error.code})"
        if question.save:
            save_overlay(answer, question.save / names[image])
        return answer

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        try:
            yield from zip(images, pool.map(answer_or_reason, images), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def ask(content: bytes, question: Question) -> dict[str, Any]:
    """The server's answer to one image file, as docs/api.md describes it.

    Sent to `/predict`, since TorchServe drops the query of `/predictions`.

    Raises:
        ServerError: the server refused the image, or its queue stayed full.
        NoServerError: no server answers at the address.
    """
    version = f"/{question.version}" if question.version else ""
    path = f"/{question.network}{version}/predict"
    query = {
        "heatmap": "overlay" if question.save else "none",
        "class": question.of_class,
        "operating_point": question.operating_point,
    }
    headers = {"Content-Type": "application/octet-stream"}
    for delay in (*RETRY_DELAYS, None):
        try:
            answer = api.call("POST", question.server, path, headers, params=query, data=content)
            return dict(answer.json())
        except api.ServerError as error:
            if error.code != 503 or delay is None:
                raise
            time.sleep(delay)
    raise AssertionError("the last attempt returns or raises")


def save_overlay(answer: dict[str, Any], path: Path) -> None:
    """Write the answer's overlay as a PNG."""
    with files.replacing(path) as partial:
        partial.write_bytes(base64.b64decode(answer["heatmap"]["overlay"]))


def overlay_names(images: list[Image]) -> dict[Image, str]:
    """A unique file name for each image's overlay: x.jpeg.png, x.jpeg-2.png."""
    names: dict[Image, str] = {}
    taken: set[str] = set()
    for image in images:
        name, number = f"{image.name}.png", 1
        while name in taken:
            number += 1
            name = f"{image.name}-{number}.png"
        taken.add(name)
        names[image] = name
    return names
