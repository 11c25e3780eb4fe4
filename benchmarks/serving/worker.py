"""A separate process that measures on command: one line of JSON per command and per answer.

The process is a module that is run with an archive and a folder of images. It ends when the
commands end.
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

ROOT = Path(__file__).parents[2]

Command = Callable[..., dict[str, Any]]  # a command's fields → measured figures


@contextmanager
def process(module: str, archive: Path, images: Sequence[bytes]) -> Iterator[Command]:
    """Start a measuring process; yields the function that sends it a command.

    Raises:
        RuntimeError: (the function) the process ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            (Path(folder) / f"{number:03}.jpeg").write_bytes(image)
        arguments = [sys.executable, "-m", module, str(archive.resolve()), folder]
        with subprocess.Popen(
            arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as running:
            commands, answers = running.stdin, running.stdout
            assert commands
            assert answers

            def send(**fields: Any) -> dict[str, Any]:
                print(json.dumps(fields), file=commands, flush=True)
                line = answers.readline()
                if not line:
                    raise RuntimeError(f"{module} of {archive.name} ended: see its error above")
                return dict(json.loads(line))

            try:
                yield send
            finally:
                commands.close()  # ends the process


@contextmanager
def inputs() -> Iterator[tuple[Path, list[bytes]]]:
    """In the measuring process: the folder of the unpacked archive, and the images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("archive", type=Path)
    parser.add_argument("images", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(options.archive) as archive:
            archive.extractall(folder)
        yield Path(folder), [path.read_bytes() for path in sorted(options.images.iterdir())]


def serve_commands(execute: Command) -> None:
    """In the measuring process: execute each command and print its figures, until none is left."""
    for line in sys.stdin:
        print(json.dumps(execute(**json.loads(line))), flush=True)
