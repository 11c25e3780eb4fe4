"""Every engine beside the network itself: `python -m benchmarks.engines --data FOLDER`.

The network's own logits on a part of the data (the test images) are computed eagerly, once. Beside
them stand those of each archive's graph by each engine: the largest difference, the labels that
change at the default operating point, and how far an image's probability in a batch is from the
one that it gets alone. The table goes to docs/results/engines.md. The data's labels are not used.
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
from train import checkpoint, data, memory, sections, split
from train.networks import predict

BATCH = 4  # what the server's batches are at most
ALONE = 32  # images that are asked alone too, evenly spread
RESULTS = Path("docs/results/engines.md")

Logits = npt.NDArray[np.float32]  # (N, 2)


@dataclass(frozen=True)
class Beside:
    """A graph run by an engine, beside its network run eagerly."""

    network: str
    precision: str
    engine: str
    images: int
    logit_difference: float  # the largest
    changed_labels: int
    batch_difference: float  # of P(PNEUMONIA), in a batch and alone, the largest

    def row(self) -> list[str]:
        """Its line in the table."""
        return [
            *(self.network, self.precision, self.engine),
            f"{self.logit_difference:.1e}",
            f"{self.changed_labels} of {self.images}",
            f"{self.batch_difference:.1e}",
        ]


HEAD = ["network", "precision", "engine", "largest difference of a logit", "labels changed"]
HEAD += ["P(PNEUMONIA), batched and alone"]


def beside(card: ArchivedNetwork, run: Engine, name: str, pixels: Pixels, eager: Logits) -> Beside:
    """An engine with the graph of a card, on pixels (N, S, S) of which the network's own logits
    (N, 2) are known."""
    parts = np.split(pixels, range(BATCH, len(pixels), BATCH))
    bar = tqdm(parts, desc=f"{card.network}, {name}", unit=" batches", disable=None, leave=False)
    logits = np.stack([output.logits for part in bar for output in run(part)])
    some = np.linspace(0, len(pixels) - 1, min(ALONE, len(pixels))).astype(int)
    alone = np.stack([run(pixels[place : place + 1])[0].logits for place in some])
    scores = [
        decision.printed_probability(values, card.temperature) for values in (eager, logits, alone)
    ]
    labels = [decision.is_positive(values, card.threshold) for values in scores[:2]]
    return Beside(
        network=card.network,
        precision=card.graph.precision,
        engine=name,
        images=len(pixels),
        logit_difference=float(np.abs(logits - eager).max()),
        changed_labels=int((labels[0] != labels[1]).sum()),
        batch_difference=float(np.abs(scores[1][some] - scores[2]).max()),
    )


def measure(
    paths: Sequence[Path], sources: Sequence[Path], root: Path, part: str
) -> Iterator[Beside]:
    """Every archive of one network with every engine, on a part of the data in a folder.

    Raises:
        ArchiveError: an archive is not whole.
        ValueError: none of the sources has the weights that an archive was made of.
    """
    eager: dict[str | None, tuple[Pixels, Logits]] = {}
    for path in paths:
        card = archives.card_of(path)
        if not isinstance(card, ArchivedNetwork):  # its networks have archives of their own
            continue
        sha256 = card.weights_sha256
        if sha256 not in eager:
            eager[sha256] = _eager(sha256, sources, root, part)
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as packed:
            graph = Path(packed.extract(card.graph.file, folder))
            of_torch = card.graph.engine == engine.TORCH
            for name in [engine.TORCH] if of_torch else engine.OF_ONNX:
                yield beside(card, engine.load(name, graph), name, *eager[sha256])


def _eager(
    sha256: str | None, sources: Sequence[Path], root: Path, part: str
) -> tuple[Pixels, Logits]:
    """The part's pixels (N, S, S), and what the network of that hash says of them."""
    for source in sources:
        if checkpoint.read_network_card(source).weights_sha256 == sha256:
            network, card = checkpoint.load(source)
            dataset = data.load(root, card.input.size)
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
    parser.add_argument("--part", choices=split.PARTS, default=split.TEST)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    memory.keep()
    paths = [
        archive
        for path in options.archives
        for archive in (sorted(path.glob("*.mar")) if path.is_dir() else [path])
    ]
    sources = options.weights or sorted(checkpoint.PUBLISHED.glob("*.safetensors"))
    rows = [one.row() for one in measure(paths, sources, options.data, options.part)]
    table = sections.table(HEAD, rows)
    title = "# Engines beside the network itself"
    said = f"On `{options.part}`, by `python -m benchmarks.engines`."
    checkpoint.write_text(options.results, f"{title}\n\n{said}\n\n{table}")
    print(table)


if __name__ == "__main__":
    main()
