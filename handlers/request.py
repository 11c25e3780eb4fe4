"""The stages of a request: received, decoded, then answered, refused or described.

The log has neither pixels nor data of a patient.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from handlers import response
from handlers.card import Archived
from handlers.errors import RefusalError
from handlers.inputs import Inputs
from handlers.pixels import Decoded
from handlers.response import Answer, Reply

Seconds = Mapping[str, float]  # by step: decode, network, overlay
T = TypeVar("T")

INTERNAL_ERROR, OUT_OF_MEMORY = "InternalError", "OutOfMemory"


@dataclass(frozen=True)
class ReceivedRequest:
    """One request of a batch as TorchServe passes it; header names are in lower case."""

    index: int  # in the batch
    id: str
    headers: Mapping[str, str]
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class DecodedRequest:
    """A request whose options are valid and whose image is decoded."""

    received: ReceivedRequest
    inputs: Inputs
    image: Decoded
    seconds: Seconds

    def after(self, step: str, seconds: float) -> "DecodedRequest":
        """The same request with the time of one more step."""
        return replace(self, seconds={**self.seconds, step: seconds})


@dataclass(frozen=True)
class AnsweredRequest:
    """A request with its answer; `brightness` is the mean grey of its image, 0..255."""

    received: ReceivedRequest
    answer: Answer
    brightness: float
    reply: Reply
    seconds: Seconds


@dataclass(frozen=True)
class RefusedRequest:
    """A request that is refused; `error` is the type of the error."""

    received: ReceivedRequest
    error: str
    reply: Reply
    seconds: Seconds


@dataclass(frozen=True)
class DescribedRequest:
    """TorchServe's own request for the card; the reply is the card."""

    received: ReceivedRequest
    reply: Reply


Outcome = AnsweredRequest | RefusedRequest | DescribedRequest


def attempt(
    received: ReceivedRequest,
    seconds: Seconds,
    step: Callable[[], T],
    on_error: Callable[[BaseException], None],
) -> T | RefusedRequest:
    """The result of a step or, if it raises, the refusal of this request.

    `seconds` are the times of earlier steps. `on_error` is called with an error that is not a
    refusal.
    """
    try:
        return step()
    except RefusalError as error:
        reply = response.refusal(error.status, error.type, str(error))
        return RefusedRequest(received, error.type, reply, seconds)
    except MemoryError as error:
        on_error(error)
        reply = response.refusal(
            413, OUT_OF_MEMORY, "The image takes more memory than a worker has: send it smaller."
        )
        return RefusedRequest(received, OUT_OF_MEMORY, reply, seconds)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of a decoder written in Rust is not an Exception
        on_error(error)
        reply = response.refusal(
            500, INTERNAL_ERROR, "The server failed on this request: its log says why."
        )
        return RefusedRequest(received, INTERNAL_ERROR, reply, seconds)


def log_line(outcome: Outcome, card: Archived, batch_size: int) -> str:
    """The log line of a request, in JSON; times in milliseconds."""
    record: dict[str, Any] = {
        "request_id": outcome.received.id,
        "model": card.network,
        "version": card.version,
        "status": outcome.reply.status,
    }
    if isinstance(outcome, RefusedRequest):
        record["error"] = outcome.error
    if isinstance(outcome, AnsweredRequest):
        decision = outcome.answer.decision
        record["label"] = card.classes[decision.label]
        record["probability"] = outcome.answer.combined.positive
        if decision.triage is not None:
            record["triage"] = decision.triage.decision
    record["batch"] = batch_size
    if not isinstance(outcome, DescribedRequest):
        record |= {f"{step}_ms": round(1000 * taken, 2) for step, taken in outcome.seconds.items()}
    return json.dumps(record)
