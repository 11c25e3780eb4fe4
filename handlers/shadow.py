"""Copies of live requests to a candidate, to compare its answers before it answers anyone.

`python -m client promote --shadow` writes an order into a folder that the server knows: which
version's requests go to which other. No answer waits for a copy's: that goes out from a thread of
its own, and where the candidate can't keep up, some are left out. Of an image nothing is kept.
"""

import json
import logging
import os
import queue
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from handlers.request import Request
from handlers.response import POSITIVE

log = logging.getLogger(__name__)

FOLDER = "PNEUMOCAM_SHADOW"
WAITING = 16  # copies that wait for the candidate; each holds an image
TIMEOUT = 30  # seconds

Card = Mapping[str, Any]


@dataclass(frozen=True)
class Copy:
    """One live request, and what it was answered."""

    order: Mapping[str, Any]
    image: bytes
    operating_point: str
    said: Mapping[str, Any]


class Shadow:
    """Copies the requests of one version as long as there is an order to."""

    def __init__(self, card: Card) -> None:
        """Of one archive; without the environment's PNEUMOCAM_SHADOW, a folder, it does nothing."""
        folder = os.environ.get(FOLDER)
        self._card = card
        self._file = Path(folder) / f"{card['network']}.json" if folder else None
        self._known: tuple[int, Mapping[str, Any]] = (0, {})
        self._copies: queue.Queue[Copy] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None

    def copy(self, requests: Sequence[Request]) -> None:
        """Copy those of a batch that were predictions, and were answered."""
        order = self._order()
        if order is None:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_all, daemon=True)
            self._thread.start()
        for request in requests:
            if request.verdict is None or request.question is None or request.question.explain:
                continue
            said = {
                "request_id": request.id,
                "label": self._card["classes"][request.verdict.label],
                "probability": request.verdict.probability[POSITIVE],
            }
            image = bytes(request.question.image)
            try:
                self._copies.put_nowait(Copy(order, image, request.question.operating_point, said))
            except queue.Full:
                return

    def _order(self) -> Mapping[str, Any] | None:
        """What there is to do now, for this version."""
        if self._file is None:
            return None
        try:
            changed = self._file.stat().st_mtime_ns
            if changed != self._known[0]:
                self._known = changed, json.loads(self._file.read_text())
        except (OSError, ValueError):
            return None
        order = self._known[1]
        mine = order.get("from") == self._card["version"] and time.time() < order["until"]
        return order if mine else None

    def _send_all(self) -> None:
        assert self._file
        while True:
            copy = self._copies.get()
            line = {**copy.said, "candidate": self._send(copy)}
            try:
                with self._file.with_suffix(".jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError:
                log.exception("a compared answer can't be written")

    def _send(self, copy: Copy) -> dict[str, Any]:
        """What the candidate answers, or why it does not."""
        order = copy.order
        query = urlencode({"heatmap": "none", "operating_point": copy.operating_point})
        road = f"{self._card['network']}/{order['to']}/predict"
        request = urllib.request.Request(
            f"{order['inference']}/{road}?{query}",
            data=copy.image,
            headers={"Content-Type": "application/octet-stream", **order["headers"]},
        )
        started = time.perf_counter()
        try:
            with _opener(order["authority"]).open(request, timeout=TIMEOUT) as answer:
                found = json.loads(answer.read())
        except (OSError, ValueError) as error:
            return {"error": str(error)}
        return {
            "label": found["label"],
            "probability": found["probability"][self._card["classes"][POSITIVE]],
            "seconds": time.perf_counter() - started,
        }


@cache  # the certificates are read once, not for each copy
def _opener(authority: str | None) -> urllib.request.OpenerDirector:
    trusted = ssl.create_default_context(cafile=authority)
    # A proxy named in the environment knows nothing of this server.
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)
    )
