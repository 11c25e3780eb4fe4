"""One request of a batch on its way through the handler, and what is logged and counted of it."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from handlers.pixels import Decoded
from handlers.question import Question
from handlers.response import POSITIVE, Reply, Verdict

Card = Mapping[str, Any]


@dataclass
class Request:
    """What is known of a request so far. No pixel and no patient is among what is logged."""

    index: int  # in the batch
    id: str
    headers: Mapping[str, str]  # by name in lower case
    fields: Mapping[str, Any]
    question: Question | None = None
    image: Decoded | None = None
    verdict: Verdict | None = None
    triage: str | None = None
    warned: bool = False
    refusal: str | None = None  # the type of an error
    reply: Reply | None = None
    seconds: dict[str, float] = field(default_factory=dict)  # by step: decode, network, overlay

    def timed(self, step: str) -> AbstractContextManager[None]:
        """Keep how long the block takes."""
        return timed([self], step)

    def line(self, card: Card, batch: int) -> str:
        """One line of the log, in JSON; times in milliseconds."""
        said: dict[str, Any] = {
            "request_id": self.id,
            "model": card["network"],
            "version": card["version"],
            "status": self.reply.status if self.reply else None,
            "error": self.refusal,
            "label": card["classes"][self.verdict.label] if self.verdict else None,
            "probability": self.verdict.probability[POSITIVE] if self.verdict else None,
            "triage": self.triage,
            "batch": batch,
            **{f"{step}_ms": round(1000 * taken, 2) for step, taken in self.seconds.items()},
        }
        return json.dumps({key: value for key, value in said.items() if value is not None})


@contextmanager
def timed(requests: Sequence[Request], step: str) -> Iterator[None]:
    """Keep how long the block takes, for each of these requests."""
    started = time.perf_counter()
    yield
    for request in requests:
        request.seconds[step] = time.perf_counter() - started
