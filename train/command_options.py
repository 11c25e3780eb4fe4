"""Options of the verbs of `python -m train`; each function adds a verb's options to its parser."""

import argparse
from pathlib import Path

import arguments
from handlers.engine import ENGINES
from train.fitting.options import Options, network_names
from train.model.networks import NETWORKS

LATEST = Path("runs/latest")


def train(parser: argparse.ArgumentParser) -> None:
    """Options of `train`: every field of `Options`, and --judge."""
    arguments.add(parser, Options)
    _add_judge(parser)


def crosscheck(parser: argparse.ArgumentParser) -> None:
    """Options of `crosscheck`."""
    _add_run(parser)
    _add_judge(parser)


def evaluate(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate`."""
    _add_run(parser)
    _add_judge(parser)
    parser.add_argument(
        "--twins",
        type=Path,
        help="original files, in class folders, of which the data has small copies",
    )


def explain_report(parser: argparse.ArgumentParser) -> None:
    """Options of `explain-report`."""
    _add_run(parser)
    parser.add_argument(
        "--other", type=Path, help="a run with a different seed, to compare its maps"
    )
    parser.add_argument(
        "--published", type=Path, metavar="DATA",
        help="test the networks in weights/ instead of a run's; DATA is their training data",
    )  # fmt: skip
    parser.add_argument("--masks", type=Path, help="lung masks of DATA (--published)")


def shortcuts(parser: argparse.ArgumentParser) -> None:
    """Options of `shortcuts`."""
    split(parser)
    _add_masks(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/shortcuts"), help="output folder")
    _add_judge(parser)


def tune(parser: argparse.ArgumentParser) -> None:
    """Options of `tune`."""
    split(parser)
    _add_masks(parser)
    parser.add_argument(
        "--network", choices=list(NETWORKS), default="resnet50", help="the network to tune"
    )
    parser.add_argument("--trials", type=int, default=12, help="finished trials in all")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of a trial")
    parser.add_argument(
        "--confirm",
        action="store_true",
        help="compare the default and the best trial with two new seeds",
    )


def archive(parser: argparse.ArgumentParser) -> None:
    """Options of `archive`."""
    parser.add_argument(
        "--run", type=Path, help="the run's folder; default: the latest run, else weights/"
    )
    parser.add_argument("--networks", type=network_names, help="networks to pack; default: all")
    parser.add_argument("--version", default="1.0", help="version of the archives, as in 1.0")
    parser.add_argument(
        "--store", type=Path, default=Path("model_store"), help="folder of the archives"
    )
    parser.add_argument(
        "--engine",
        choices=["auto", *ENGINES],
        default="auto",
        help="engine that runs the graph; auto: the fastest on this machine",
    )
    parser.add_argument(
        "--precision",
        choices=["f32", "f16", "int8"],
        default="f32",
        help="f16 needs a GPU, int8 is calibrated on training images; both are built only if "
        "the answers stay nearly the same",
    )
    parser.add_argument("--data", type=Path, help="the networks' training data, for f16 and int8")


def publish(parser: argparse.ArgumentParser) -> None:
    """Options of `publish`."""
    _add_run(parser)
    parser.add_argument(
        "--networks", type=network_names, help="networks to publish; default: all of the run"
    )


def show(parser: argparse.ArgumentParser) -> None:
    """Options of `show`."""
    parser.add_argument("weights", type=Path, help="a network's folder, e.g. runs/latest/resnet50")
    parser.add_argument("images", type=Path, help="a folder of images, or an image")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="output folder")


def data(parser: argparse.ArgumentParser) -> None:
    """Options of `data`."""
    parser.add_argument(
        "--folder", type=Path, default=Path("data/chest_xray"), help="output folder"
    )


def split(parser: argparse.ArgumentParser) -> None:
    """Options of `split`: the data set and how it is split."""
    parser.add_argument("--data", type=Path, help="folder with train/{NORMAL,PNEUMONIA} …")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split")
    parser.add_argument("--patient", help="regex on the file's name, or table.csv:column")
    parser.add_argument("--skip-broken", action="store_true", help="leave broken files out")


def phantoms(parser: argparse.ArgumentParser) -> None:
    """Options of `phantoms`."""
    parser.add_argument("folder", type=Path, help="output folder")
    parser.add_argument("--seed", type=int, default=0, help="a different seed draws other chests")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, default=LATEST, help="the run's folder")


def _add_judge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--judge",
        choices=["test", "validation"],
        default="test",
        help="validation leaves the test images closed, while recipes are chosen",
    )


def _add_masks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--masks", type=Path, help="lung masks: folder/<class>/<image's name>.png")
