"""Every engine's outputs against the network in PyTorch.

`python -m benchmarks.experiments.engine_parity --data FOLDER`. The network's logits on a part of
the data set (the test images) are computed once in PyTorch. Each archive's graph with each engine
is compared with them: the largest difference of a logit, the labels that change at the default
operating point, and the largest difference of a probability between a batch and the image alone.
The table is written to docs/results/engines.md. The labels of the data set are not used.
"""

import argparse
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from client import archives
from handlers import decision, engine
from handlers.arrays import Pixels
from handlers.card import ArchivedNetwork
from handlers.engine import Engine
from train.data import dataset as datasets
from train.data import splits
from train.fitting import allocator
from train.model import checkpoint
from train.model.networks import predict
from train.report import report_sections

BATCH = 4  # the server's largest batch
SINGLES = 32  # images that are also run alone, evenly spread
RESULTS = Path("docs/results/engines.md")

Logits = npt.NDArray[np.float32]  # (N, 2)


@dataclass(frozen=True)
class Parity:
    """Differences between a graph run by an engine and its network in PyTorch."""

    network: str
    precision: str
    engine: str
    images: int
    logit_difference: float  # the largest
    changed_labels: int
    batch_difference: float  # of P(PNEUMONIA) between a batch and the image alone, the largest

    def row(self) -> list[str]:
        """Its row of the table."""
        return [
            *(self.network, self.precision, self.engine),
            f"{self.logit_difference:.1e}",
            f"{self.changed_labels} of {self.images}",
            f"{self.batch_difference:.1e}",
        ]


HEAD = ["network", "precision", "engine", "largest difference of a logit", "labels changed"]
HEAD += ["largest difference of P(PNEUMONIA), batched or alone"]


def compare(
    card: ArchivedNetwork, run: Engine, name: str, pixels: Pixels, reference: Logits
) -> Parity:
    """Differences of an engine with a card's graph on pixels (N, S, S).

    `reference` has the logits (N, 2) of the network in PyTorch.
    """
    batches = np.split(pixels, range(BATCH, len(pixels), BATCH))
    bar = tqdm(batches, desc=f"{card.network}, {name}", unit=" batches", disable=None, leave=False)
    logits = np.stack([output.logits for batch in bar for output in run(batch)])
    rows = np.linspace(0, len(pixels) - 1, min(SINGLES, len(pixels))).astype(int)
    single = np.stack([run(pixels[row : row + 1])[0].logits for row in rows])
    scores = [
        decision.printed_probability(values, card.temperature)
        for values in (reference, logits, single)
    ]
    labels = [decision.is_positive(values, card.threshold) for values in scores[:2]]
    return Parity(
        network=card.network,
        precision=card.graph.precision,
        engine=name,
        images=len(pixels),
        logit_difference=float(np.abs(logits - reference).max()),
        changed_labels=int((labels[0] != labels[1]).sum()),
        batch_difference=float(np.abs(scores[1][rows] - scores[2]).max()),
    )


def measure(
    paths: Sequence[Path], sources: Sequence[Path], root: Path, part: str
) -> Iterator[Parity]:
    """Compare every archive of one network, with every engine, on a part of the data set at `root`.

    `sources` are runs or weights' files, one of which has the weights of each archive.

    Raises:
        ArchiveError: an archive is damaged.
        ValueError: no source has the weights of an archive.
    """
    references: dict[str | None, tuple[Pixels, Logits]] = {}
    for path in paths:
        card = archives.card_of(path)
        if not isinstance(card, ArchivedNetwork):  # an ensemble's networks have their own archives
            continue
        sha256 = card.weights_sha256
        if sha256 not in references:
            references[sha256] = _reference(sha256, sources, root, part)
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
            graph = Path(archive.extract(card.graph.file, folder))
            is_torch = card.graph.engine == engine.TORCH
            for name in [engine.TORCH] if is_torch else engine.OF_ONNX:
                yield compare(card, engine.load(name, graph), name, *references[sha256])


def _reference(
    sha256: str | None, sources: Sequence[Path], root: Path, part: str
) -> tuple[Pixels, Logits]:
    """The part's pixels (N, S, S), and the logits of the network with these weights."""
    for source in sources:
        if checkpoint.read_network_card(source).weights_sha256 == sha256:
            network, card = checkpoint.load(source)
            dataset = datasets.load(root, card.input.size)
            pixels = np.ascontiguousarray(dataset.pixels[dataset.rows(part)])
            network.to(memory_format=torch.channels_last)
            logits = predict(network, torch.from_numpy(pixels), pixels.shape[-1]).numpy()
            return pixels, logits
    raise ValueError(f"no weights of sha256 {str(sha256)[:12]}: name their run with --weights")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--archives", type=Path, nargs="+", default=[Path("model_store")])
    parser.add_argument("--weights", type=Path, nargs="+", help="(all of weights/)")
    parser.add_argument("--part", choices=splits.PARTS, default=splits.TEST)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    allocator.keep_freed_memory()
    paths = [
        archive
        for path in options.archives
        for archive in (sorted(path.glob("*.mar")) if path.is_dir() else [path])
    ]
    sources = options.weights or sorted(checkpoint.PUBLISHED.glob("*.safetensors"))
    rows = [parity.row() for parity in measure(paths, sources, options.data, options.part)]
    table = report_sections.table(HEAD, rows)
    title = "# Engines against the network in PyTorch"
    origin = f"On `{options.part}`, by `python -m benchmarks.experiments.engine_parity`."
    checkpoint.write_text(options.results, f"{title}\n\n{origin}\n\n{table}")
    print(table)


if __name__ == "__main__":
    main()
