"""A process beside the servers that measures when it is told to: a line of JSON for each order.

It is a module that is run with an archive and a folder of images, and stays until its orders end.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

Order = Callable[..., dict[str, Any]]  # an order's fields → what was measured


@contextmanager
def process(module: str, archive: Path, images: Sequence[bytes]) -> Iterator[Order]:
    """Such a process, as a function of an order's fields."""
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            (Path(folder) / f"{number:03}.jpeg").write_bytes(image)
        command = [sys.executable, "-m", module, str(archive.resolve()), folder]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as running:
            orders, answers = running.stdin, running.stdout
            assert orders
            assert answers

            def order(**fields: Any) -> dict[str, Any]:
                print(json.dumps(fields), file=orders, flush=True)
                line = answers.readline()
                if not line:
                    raise RuntimeError(f"{module} of {archive.name} ended: see its error above")
                return dict(json.loads(line))

            try:
                yield order
            finally:
                orders.close()  # it ends where its orders do


@contextmanager
def given() -> Iterator[tuple[Path, list[bytes]]]:
    """In that process: the folder of the unpacked archive, and the images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("archive", type=Path)
    parser.add_argument("images", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(options.archive) as packed:
            packed.extractall(folder)
        yield Path(folder), [path.read_bytes() for path in sorted(options.images.iterdir())]


def obey(measure: Order) -> None:
    """In that process: measure for each order, until there are no more."""
    for line in sys.stdin:
        print(json.dumps(measure(**json.loads(line))), flush=True)
