"""The TorchServe handler. TorchServe imports this file by its path, not as part of a package."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from ts.context import Context

from handlers import card as cards
from handlers import dicom, engine, erasure, files, heatmap, inputs, memory, pixels, response
from handlers.arrays import Pixels
from handlers.card import Archived, ArchivedEnsemble, ArchivedNetwork, CardError, GraphCard
from handlers.card_fields import StoredFile
from handlers.engine import Engine, ModelOutput
from handlers.metrics import Metrics
from handlers.request import (
    OUT_OF_MEMORY,
    AnsweredRequest,
    DecodedRequest,
    DescribedRequest,
    Outcome,
    ReceivedRequest,
    RefusedRequest,
    attempt,
    log_line,
)
from handlers.response import JSON, PNG, Reply

log = logging.getLogger(__name__)

UNSUITABLE = "PNEUMOCAM_UNSUITABLE"  # refuse, or warn of, what is not a frontal chest radiograph
MODALITIES = "PNEUMOCAM_MODALITIES"  # of DICOM, accepted without a warning instead of CR and DX
GOLDEN_TOLERANCE = 1e-3  # logits
MAX_ID = 128  # characters of a client's request id

REBUILD = "build the archive again with make archive"

T = TypeVar("T")


class Classifier:
    """Answers chest X-rays by the card and the graphs of its archive."""

    def initialize(self, context: Context) -> None:
        """Load card and graphs, and check each network's answer to the archive's golden image.

        Raises:
            RuntimeError: card, graph or image is missing or was changed, or a network's answer
                differs from that on its card.
        """
        folder = Path(context.system_properties["model_dir"])
        self._card = _read_card(folder)
        self._size = self._card.input.size
        self._policy = _policy(self._card)
        self._metrics = Metrics(self._card)
        self._threads = ThreadPoolExecutor(engine.cores(), "images")
        self._network = Lock()  # explanations run the networks again, each in its own thread
        gpu = context.system_properties.get("gpu_id")  # None without a GPU
        self._engines = [_engine(folder, network, gpu) for network in self._card.networks]
        golden = _golden_image(folder, self._card, self._size)
        for network, output in zip(self._card.networks, self._evaluate([golden])[0], strict=True):
            _compare(network, output)
        engine.give_back_memory()
        memory.limit_data()

    def handle(self, data: Sequence[Mapping[str, Any]], context: Context) -> list[bytes]:
        """The response bodies of a batch; an error affects its own request only."""
        received = [_receive(fields, context, index) for index, fields in enumerate(data)]
        outcomes: dict[int, Outcome] = {}
        decoded: list[DecodedRequest] = []
        for request in self._map(self._decode, received):
            if isinstance(request, DecodedRequest):
                decoded.append(request)
            else:
                outcomes[request.received.index] = request
        started = time.perf_counter()
        results = self._run([request.image.pixels for request in decoded])
        network_seconds = time.perf_counter() - started
        decoded = [request.after("network", network_seconds) for request in decoded]
        for outcome in self._map(self._answer, decoded, results):
            outcomes[outcome.received.index] = outcome
        ordered = [outcomes[request.index] for request in received]
        self._metrics.count(ordered, context.metrics)
        return [_send(outcome, context, self._card, len(data)) for outcome in ordered]

    def _map(
        self, step: Callable[..., T], requests: Sequence[Any], *more: Sequence[Any]
    ) -> list[T]:
        """The results of a step on each request, in threads: decoding and drawing free the GIL.

        Where memory runs out, a request is tried again alone: a neighbour may have taken it.
        """
        if len(requests) < 2:
            return list(map(step, requests, *more))
        results = list(self._threads.map(step, requests, *more))
        for place, arguments in enumerate(zip(requests, *more, strict=True)):
            result = results[place]
            if isinstance(result, RefusedRequest) and result.error == OUT_OF_MEMORY:
                results[place] = step(*arguments)
        return results

    def _decode(
        self, received: ReceivedRequest
    ) -> DecodedRequest | RefusedRequest | DescribedRequest:
        """A request with its options and image, or refused; or TorchServe's own, for the card."""
        headers = received.headers
        # Without fields: a client may send this header with an image.
        if headers.get("describe") == "True" and not received.fields:
            return DescribedRequest(
                received, Reply(200, response.encode(cards.document(self._card)))
            )

        def decode() -> DecodedRequest:
            # TorchServe marks requests to /explanations so; they share batches with predictions.
            explain = headers.get("explain") == "True"
            content_type = headers.get("content-type", "")
            options = inputs.read(received.fields, content_type, self._card, explain=explain)
            started = time.perf_counter()
            image = pixels.read(options.image, self._size, self._policy)
            seconds = {"decode": time.perf_counter() - started}
            return DecodedRequest(received, options, image, seconds)

        return attempt(received, {}, decode, _log_error)

    def _run(self, images: Sequence[Pixels]) -> list[list[ModelOutput] | Exception]:
        """The networks' outputs on each image, or the error.

        All images in one batch. If that fails, each is run alone, so that only its own request
        fails.
        """
        if not images:
            return []
        try:
            return list(self._evaluate(images))
        except Exception as error:
            if len(images) == 1:
                return [error]
            log.exception("a batch of %d failed: each is run alone", len(images))
            return [output for image in images for output in self._run([image])]

    def _evaluate(self, images: Sequence[Pixels]) -> list[list[ModelOutput]]:
        """The networks' outputs: a list per image, in the order of the networks."""
        batch = np.stack(images)
        with self._network:
            by_network = [run(batch) for run in self._engines]
        return [list(outputs) for outputs in zip(*by_network, strict=True)]

    def _answer(
        self, request: DecodedRequest, result: list[ModelOutput] | Exception
    ) -> AnsweredRequest | RefusedRequest:
        """The answer to a request, from the networks' outputs on its image."""

        def answer() -> AnsweredRequest:
            if isinstance(result, Exception):
                raise result
            return self._reply(request, result)

        return attempt(request.received, request.seconds, answer, _log_error)

    def _reply(self, request: DecodedRequest, outputs: list[ModelOutput]) -> AnsweredRequest:
        options, image, card = request.inputs, request.image, self._card
        answer = response.answer(card, options, outputs, image.warnings)
        evidence = answer.combined.output.maps[answer.shown]
        overlay, erased_fields = None, None
        as_png = (
            response.prefers_png(request.received.headers.get("accept", "")) and not options.explain
        )
        if options.explain:
            erased, share = erasure.erase(image.pixels, evidence)
            erased_outputs = self._evaluate(list(erased))
            erased_fields = response.erasure(card, answer, erased_outputs, share)
        elif as_png or options.heatmap == "overlay":
            started = time.perf_counter()
            overlay = heatmap.overlay(image.pixels, evidence, card.map.scale)
            request = request.after("overlay", time.perf_counter() - started)
        if as_png and overlay is not None:
            reply = Reply(200, overlay, PNG)
        else:
            fields = response.document(card, answer, request.received.id, overlay, erased_fields)
            reply = Reply(200, response.encode(fields), JSON)
        brightness = float(image.pixels.mean())
        return AnsweredRequest(request.received, answer, brightness, reply, request.seconds)


def _read_card(folder: Path) -> Archived:
    if not (folder / cards.CARD).is_file():
        raise RuntimeError(f"the archive holds no {cards.CARD}: {REBUILD}")
    try:
        card = cards.read(folder / cards.CARD)
    except CardError as error:
        raise RuntimeError(f"{error}: {REBUILD}") from error
    if not isinstance(card, ArchivedNetwork | ArchivedEnsemble):
        raise RuntimeError(f"{cards.CARD} is not that of an archive (no version): {REBUILD}")
    return card


def _golden_image(folder: Path, card: Archived, size: int) -> Pixels:
    """The archive's golden image, pixels (S, S)."""
    if card.golden is None:
        raise RuntimeError(f"{cards.CARD} names no golden image: {REBUILD}")
    return pixels.decode(_checked(folder, card.golden).read_bytes(), size)


def _log_error(error: BaseException) -> None:
    log.error("a request failed", exc_info=error)


def _policy(card: Archived) -> dicom.Policy:
    """Which DICOM images are answered, by the environment's settings and the card's ages.

    Raises:
        RuntimeError: a setting has an unknown value.
    """
    unsuitable = os.environ.get(UNSUITABLE, dicom.REFUSE)
    if unsuitable not in (dicom.REFUSE, dicom.WARN):
        raise RuntimeError(f"{UNSUITABLE}={unsuitable}: known are {dicom.REFUSE}, {dicom.WARN}")
    modalities = os.environ.get(MODALITIES, "").upper().split()
    return dicom.Policy(unsuitable, frozenset(modalities) or dicom.MODALITIES, card.ages)


def _engine(folder: Path, network: GraphCard, gpu: int | None) -> Engine:
    """The engine of a network, with its graph loaded."""
    graph = network.graph
    loaded = engine.load(graph.engine, _checked(folder, graph), gpu=gpu)
    log.info("%s: %s, %s", network.network, graph.engine, graph.precision)
    return loaded


def _checked(folder: Path, stored: StoredFile) -> Path:
    """The path of a file of the archive, its hash checked against the card's."""
    path = folder / stored.file
    if not path.is_file():
        raise RuntimeError(f"the archive holds no {stored.file}, which its card names: {REBUILD}")
    actual = files.sha256(path)
    if actual != stored.sha256:
        raise RuntimeError(
            f"{path.name} has sha256 {actual}, its card says {stored.sha256}: {REBUILD}"
        )
    return path


def _compare(network: GraphCard, output: ModelOutput) -> None:
    """Raise RuntimeError if a network's output on the golden image is not that on its card."""
    cells = network.map.rows, network.map.columns
    if output.maps.shape[1:] != cells:
        raise RuntimeError(
            f"the maps have {output.maps.shape[1:]} cells, the card says {cells}: {REBUILD}"
        )
    if network.golden_logits is None:
        raise RuntimeError(f"the card of {network.network} has no golden_logits: {REBUILD}")
    difference = float(np.abs(output.logits - np.array(network.golden_logits)).max())
    if not difference <= GOLDEN_TOLERANCE:
        raise RuntimeError(
            f"{network.network} answers the golden image with logits {output.logits.tolist()}, its "
            f"card says {list(network.golden_logits)}: another runtime or processor computes "
            "differently here"
        )


def _receive(fields: Mapping[str, Any], context: Context, index: int) -> ReceivedRequest:
    headers = {
        name.lower(): value  # TorchServe keeps the client's case
        for name, value in context.get_all_request_header(index).items()
        if isinstance(value, str)  # TorchServe adds a dict for each field of a form
    }
    # The client's id, shortened, without line breaks that could forge a line of the log.
    client_id = "".join(
        c for c in headers.get("x-request-id", "") if c.isascii() and c.isprintable()
    )
    request_id = client_id[:MAX_ID].strip() or str(context.get_request_id(index))
    return ReceivedRequest(index, request_id, headers, fields)


def _send(outcome: Outcome, context: Context, card: Archived, batch_size: int) -> bytes:
    reply, index = outcome.reply, outcome.received.index
    context.set_response_status(reply.status, HTTPStatus(reply.status).phrase, index)
    context.set_response_content_type(index, reply.content_type)
    if not outcome.received.headers:
        # A request by gRPC has none. StreamPredictions ends the worker where this is missing.
        context.set_response_header(index, "ts_stream_next", "false")
    log.info("%s", log_line(outcome, card, batch_size))
    return reply.body
