"""`run.json`: the data and the options of a run, as a type."""

import json
from dataclasses import dataclass
from pathlib import Path

from handlers.records import Record, RecordError, decode, encode
from train.model.checkpoint import CheckpointError, write_text

RUN = "run.json"


@dataclass(frozen=True, kw_only=True)
class RunFacts(Record):
    """The data and the options of a run."""

    data: str  # folder of the data set
    preset: str
    seed: int
    split_seed: int | None = None  # None, in older runs, means `seed`
    patient: str | None = None
    masks: str | None = None  # folder of the lung masks
    skip_broken: bool = False
    networks: tuple[str, ...]

    @property
    def split_by(self) -> int:
        """The seed of the split."""
        return self.seed if self.split_seed is None else self.split_seed


def read(run: Path) -> RunFacts:
    """The facts of the run in a folder.

    Raises:
        CheckpointError: the folder is not a run, or the file is malformed.
    """
    path = run / RUN
    if not path.is_file():
        raise CheckpointError(f"{run} is not a run: train one with make train")
    try:
        return decode(RunFacts, json.loads(path.read_bytes()))
    except RecordError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): train the run again") from error


def write(run: Path, facts: RunFacts) -> None:
    """Write the facts into a run's folder.

    Raises:
        CheckpointError: a full disk, a read-only folder.
    """
    write_text(run / RUN, json.dumps(encode(facts), indent=2) + "\n")
