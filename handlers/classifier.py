"""The one handler class. TorchServe imports this file alone, from beside the package."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from ts.context import Context

from handlers import dicom, engine, ensemble, explanation, heatmap, pixels, response
from handlers.engine import Engine, Pixels
from handlers.ensemble import Found, Logits, Maps
from handlers.errors import RefusalError
from handlers.meter import Meter
from handlers.question import ask
from handlers.request import Request, timed
from handlers.response import JSON, PNG, Reply

log = logging.getLogger(__name__)

CARD = "card.json"
UNSUITABLE = "PNEUMOCAM_UNSUITABLE"  # refuse or warn: DICOM that is no frontal chest radiograph
MODALITIES = "PNEUMOCAM_MODALITIES"  # answered without either, in place of CR DX
GOLDEN_TOLERANCE = 1e-3  # logits
MAX_ID = 128  # characters of a client's request id that come back

REBUILD = "build the archive again with make archive"


class Classifier:
    """Answers chest X-rays by the card and the graphs of its archive."""

    def initialize(self, context: Context) -> None:
        """Load card and graphs, and let each network answer the archive's golden image.

        Raises:
            RuntimeError: card, graph or image is missing or another, or a network does not answer
                as it did when it was archived.
        """
        folder = Path(context.system_properties["model_dir"])
        if not (folder / CARD).is_file():
            raise RuntimeError(f"the archive holds no {CARD}: {REBUILD}")
        self._card: dict[str, Any] = json.loads((folder / CARD).read_text())
        self._size: int = self._card["input"]["size"]
        self._policy = _policy(self._card)
        self._meter = Meter(self._card)
        self._threads = ThreadPoolExecutor(engine.cores(), "images")
        self._network = Lock()  # an explanation, in a thread of its own, runs it again
        cards = ensemble.members(self._card)
        gpu = context.system_properties.get("gpu_id")  # None where there is none
        self._engines = [_engine(folder, card, gpu) for card in cards]
        for card, found in zip(cards, self._golden(folder), strict=True):
            _compare(card, found.logits, found.maps)
        engine.give_back_memory()

    def _golden(self, folder: Path) -> list[Found]:
        """What each network finds on the archive's golden image."""
        image = _checked(folder, self._card["golden"])
        return self._evaluate([pixels.decode(image.read_bytes(), self._size)])[0]

    def handle(self, data: Sequence[Mapping[str, Any]], context: Context) -> list[bytes]:
        """One answer for each request of a batch; what is wrong with one concerns it alone."""
        requests = [_receive(fields, context, index) for index, fields in enumerate(data)]
        self._each(self._understand, requests)
        waiting = [request for request in requests if request.image and not request.reply]
        with timed(waiting, "network"):
            results = self._run([request.image.pixels for request in waiting if request.image])
        self._each(self._answer, waiting, results)
        self._meter.count(requests, context.metrics)
        return [_send(request, context, self._card, len(data)) for request in requests]

    def _each(self, step: Callable[..., None], requests: Sequence[Request], *more: Any) -> None:
        """A step of each request, several at a time: decoding and drawing leave Python alone."""

        def take(request: Request, *its: Any) -> None:
            with _refused(request):
                step(request, *its)

        run = self._threads.map if len(requests) > 1 else map
        list(run(take, requests, *more))

    def _understand(self, request: Request) -> None:
        """What is asked, and about which image; or, of TorchServe itself, the card."""
        headers = request.headers
        if headers.get("describe") == "True" and not request.fields:
            # A client may send such a header with an image.
            request.reply = Reply(200, response.encode(self._card))
            return
        # TorchServe's mark of /explanations, which share a queue with predictions.
        explain = headers.get("explain") == "True"
        kind = headers.get("content-type", "")
        request.question = ask(request.fields, kind, self._card, explain=explain)
        with request.timed("decode"):
            request.image = pixels.read(request.question.image, self._size, self._policy)

    def _run(self, images: Sequence[Pixels]) -> list[list[Found] | Exception]:
        """What each network found on each image, or why there is nothing.

        All in one batch; where that fails, each alone, so that none fails for another's sake.
        """
        if not images:
            return []
        try:
            return list(self._evaluate(images))
        except Exception as error:
            if len(images) == 1:
                return [error]
            log.exception("a batch of %d failed: each is run alone", len(images))
            return [found for image in images for found in self._run([image])]

    def _evaluate(self, images: Sequence[Pixels]) -> list[list[Found]]:
        """By image, then by network."""
        batch = np.stack(images)
        with self._network:
            by_network = [evaluate(batch) for evaluate in self._engines]
        return [list(found) for found in zip(*by_network, strict=True)]

    def _answer(self, request: Request, found: list[Found] | Exception) -> None:
        question, image = request.question, request.image
        assert question
        assert image
        if isinstance(found, Exception):
            raise found
        combined = ensemble.combine(self._card, found)
        verdict = response.judge(combined.logits, question, self._card)
        evidence = combined.maps[verdict.shown]
        overlay, erasure = None, None
        as_png = response.prefers_png(request.headers.get("accept", "")) and not question.explain
        if question.explain:
            erased, share = explanation.erase(image.pixels, evidence)
            erasure = response.erasure(self._card, verdict, self._evaluate(list(erased)), share)
        elif as_png or question.heatmap == "overlay":
            with request.timed("overlay"):
                overlay = heatmap.overlay(image.pixels, evidence, self._card["map"]["scale"])
        said = response.answer(self._card, question, verdict, request.id, found, overlay, erasure)
        said["warnings"] += image.warnings
        body = response.encode(said) if overlay is None or not as_png else overlay
        request.reply = Reply(200, body, PNG if body is overlay else JSON)
        request.verdict, request.warned = verdict, bool(said["warnings"])
        request.triage = said.get("triage", {}).get("decision")


def _policy(card: Mapping[str, Any]) -> dicom.Policy:
    """What the site's settings and the card's ages let be answered.

    Raises:
        RuntimeError: a setting that is not known.
    """
    unsuitable = os.environ.get(UNSUITABLE, dicom.REFUSE)
    if unsuitable not in (dicom.REFUSE, dicom.WARN):
        raise RuntimeError(f"{UNSUITABLE}={unsuitable}: known are {dicom.REFUSE}, {dicom.WARN}")
    modalities = os.environ.get(MODALITIES, "").upper().split()
    ages = card.get("ages")  # years, of the training images, where known
    return dicom.Policy(
        unsuitable, frozenset(modalities) or dicom.MODALITIES, tuple(ages) if ages else None
    )


def _engine(folder: Path, card: Mapping[str, Any], gpu: int | None) -> Engine:
    """What runs the graph of a network's card."""
    graph = card["graph"]
    loaded = engine.load(graph["engine"], _checked(folder, graph), gpu=gpu)
    log.info("%s: %s, %s", card["network"], graph["engine"], graph["precision"])
    return loaded


def _checked(folder: Path, said: Mapping[str, str]) -> Path:
    """A file of the archive, of the hash that the card says."""
    path = folder / said["file"]
    if not path.is_file():
        raise RuntimeError(f"the archive holds no {said['file']}, which its card names: {REBUILD}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != said["sha256"]:
        raise RuntimeError(
            f"{path.name} has sha256 {found}, its card says {said['sha256']}: {REBUILD}"
        )
    return path


def _compare(card: Mapping[str, Any], logits: Logits, maps: Maps) -> None:
    """The golden image's logits and map are those on a network's card."""
    cells = card["map"]["rows"], card["map"]["columns"]
    if maps.shape[1:] != cells:
        raise RuntimeError(f"the card says maps of {cells}, they are {maps.shape[1:]}: {REBUILD}")
    apart = float(np.abs(logits - np.array(card["golden_logits"])).max())
    if not apart <= GOLDEN_TOLERANCE:
        raise RuntimeError(
            f"{card['network']} answers the golden image with logits {logits.tolist()}, its card "
            f"says {card['golden_logits']}: another runtime or processor computes otherwise here"
        )


def _receive(fields: Mapping[str, Any], context: Context, index: int) -> Request:
    headers = {
        name.lower(): value  # names keep the client's case on their way
        for name, value in context.get_all_request_header(index).items()
        if isinstance(value, str)  # TorchServe puts a dict for each field of a form among them
    }
    # The client's own id, cut short and rid of what could forge a line of the log.
    given = "".join(c for c in headers.get("x-request-id", "") if c.isascii() and c.isprintable())
    request_id = given[:MAX_ID].strip() or str(context.get_request_id(index))
    return Request(index, request_id, headers, fields)


@contextmanager
def _refused(request: Request) -> Iterator[None]:
    """An error in the block is the answer to this request, and to no other."""
    try:
        yield
    except RefusalError as error:
        request.refusal = error.type
        request.reply = response.refusal(error.status, error.type, str(error))
    except Exception as error:
        log.error("a request failed", exc_info=error)
        request.refusal = "InternalError"
        request.reply = response.refusal(
            500, "InternalError", "The server failed on this request: its log says why."
        )


def _send(request: Request, context: Context, card: Mapping[str, Any], batch: int) -> bytes:
    reply = request.reply
    assert reply
    context.set_response_status(reply.status, HTTPStatus(reply.status).phrase, request.index)
    context.set_response_content_type(request.index, reply.content_type)
    log.info("%s", request.line(card, batch))
    return reply.body
