"""The one handler class. TorchServe imports this file alone, from beside the package."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
from ts.context import Context

from handlers import dicom, ensemble, explanation, heatmap, pixels, response
from handlers.engine import Engine, Pixels
from handlers.ensemble import Found, Logits, Maps
from handlers.errors import RefusalError
from handlers.pixels import Decoded
from handlers.question import Question, ask
from handlers.response import PNG, Reply

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
        cards = ensemble.members(self._card)
        self._engines = [Engine(_checked(folder, card["graph"])) for card in cards]
        for card, (logits, maps) in zip(cards, self._golden(folder), strict=True):
            _compare(card, logits, maps)

    def _golden(self, folder: Path) -> list[Found]:
        """What each network finds on the archive's golden image."""
        image = _checked(folder, self._card["golden"])
        return self._evaluate([pixels.decode(image.read_bytes(), self._size)])[0]

    def handle(self, data: Sequence[Mapping[str, Any]], context: Context) -> list[bytes]:
        """One answer for each request of a batch; what is wrong with one concerns it alone."""
        started = time.perf_counter()
        headers = [_headers(context, index) for index in range(len(data))]
        ids = [_request_id(context, index, headers[index]) for index in range(len(data))]
        replies: dict[int, Reply] = {}
        asked: dict[int, tuple[Question, Decoded]] = {}
        for index, fields in enumerate(data):
            try:
                if headers[index].get("describe") == "True" and not fields:
                    # TorchServe's own question; a client may send such a header with an image.
                    replies[index] = Reply(200, response.encode(self._card))
                else:
                    asked[index] = self._ask(fields, headers[index])
            except Exception as error:
                replies[index] = _refuse(error)
        results = self._run([image.pixels for _, image in asked.values()])
        for (index, (question, image)), found in zip(asked.items(), results, strict=True):
            try:
                accept = headers[index].get("accept", "")
                replies[index] = self._answer(question, image, found, accept, ids[index])
            except Exception as error:
                replies[index] = _refuse(error)
        taken = (time.perf_counter() - started) * 1000
        return [
            _send(context, index, replies[index], ids[index], taken) for index in sorted(replies)
        ]

    def _ask(
        self, fields: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[Question, Decoded]:
        # TorchServe's mark of /explanations, which share a queue with predictions.
        explain = headers.get("explain") == "True"
        question = ask(fields, headers.get("content-type", ""), self._card, explain=explain)
        return question, pixels.read(question.image, self._size, self._policy)

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
        """By image, then by network: logits (2,) and maps (2, h, w)."""
        batch = np.stack(images)
        by_network = [zip(*engine(batch), strict=True) for engine in self._engines]
        return [list(found) for found in zip(*by_network, strict=True)]

    def _answer(
        self,
        question: Question,
        image: Decoded,
        found: list[Found] | Exception,
        accept: str,
        request_id: str,
    ) -> Reply:
        if isinstance(found, Exception):
            raise found
        logits, maps = ensemble.combine(self._card, found)
        verdict = response.judge(logits, question, self._card)
        evidence = maps[verdict.shown]
        overlay, erasure = None, None
        as_png = response.prefers_png(accept) and not question.explain
        if question.explain:
            erased, share = explanation.erase(image.pixels, evidence)
            erasure = response.erasure(self._card, verdict, self._evaluate(list(erased)), share)
        elif as_png or question.heatmap == "overlay":
            overlay = heatmap.overlay(image.pixels, evidence, self._card["map"]["scale"])
        if as_png and overlay is not None:
            return Reply(200, overlay, PNG)
        said = response.answer(self._card, question, verdict, request_id, found, overlay, erasure)
        return Reply(
            200, response.encode({**said, "warnings": [*said["warnings"], *image.warnings]})
        )


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


def _headers(context: Context, index: int) -> dict[str, str]:
    """A request's headers by name in lower case: names keep the client's case on their way."""
    return {
        name.lower(): value
        for name, value in context.get_all_request_header(index).items()
        if isinstance(value, str)  # TorchServe puts a dict for each field of a form among them
    }


def _request_id(context: Context, index: int, headers: Mapping[str, str]) -> str:
    """The client's own, cut short and rid of what could forge a line of the log."""
    given = "".join(c for c in headers.get("x-request-id", "") if c.isascii() and c.isprintable())
    return given[:MAX_ID].strip() or str(context.get_request_id(index))


def _refuse(error: Exception) -> Reply:
    if isinstance(error, RefusalError):
        return response.refusal(error.status, error.type, str(error))
    log.error("a request failed", exc_info=error)
    return response.refusal(
        500, "InternalError", "The server failed on this request: its log says why."
    )


def _send(context: Context, index: int, reply: Reply, request_id: str, taken: float) -> bytes:
    context.set_response_status(reply.status, HTTPStatus(reply.status).phrase, index)
    context.set_response_content_type(index, reply.content_type)
    log.info("request %s: %d in %.1f ms", request_id, reply.status, taken)
    return reply.body
