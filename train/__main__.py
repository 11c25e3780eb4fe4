"""`python -m train VERB`: everything from images to archives."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import arguments
from handlers.engine import ENGINES
from train import phantoms
from train.networks import NETWORKS
from train.options import Options, data_folder, network_names

log = logging.getLogger("train")

if TYPE_CHECKING:
    from train.data import Dataset

LATEST = Path("runs/latest")


def main(argv: list[str] | None = None) -> int:
    """Run one verb; its exit status. Errors that a user can mend are told without a traceback."""
    parsed = parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)  # ours alone: the exporter would tell its every step
    try:
        parsed.act(parsed)
    except KeyboardInterrupt:
        log.error("stopped; the same command goes on from here")
        return 130
    except (OSError, ValueError, RuntimeError) as error:
        if parsed.traceback:
            raise
        log.error("error: %s", error)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The verbs and their options."""
    top = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    verbs = top.add_subparsers(metavar="VERB", required=True)
    for verb in VERBS:
        one = verbs.add_parser(
            verb.name,
            help=verb.help,
            description=verb.help,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        verb.options(one)
        one.add_argument("--traceback", action="store_true", help="show where an error arose")
        one.set_defaults(act=verb.act)
    return top


@dataclass(frozen=True)
class Verb:
    """A word of the command line: what it says of itself, takes and does."""

    name: str
    help: str
    options: Callable[[argparse.ArgumentParser], None]
    act: Callable[[argparse.Namespace], None]


def _train_options(parser: argparse.ArgumentParser) -> None:
    arguments.add(parser, Options)
    _judge_option(parser)


def _judge_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--judge",
        choices=["test", "validation"],
        default="test",
        help="validation leaves the test images closed, while recipes are chosen",
    )


def _run_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, default=LATEST, help="the run's folder")
    _judge_option(parser)


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    _run_option(parser)
    parser.add_argument(
        "--twins", type=Path, help="originals, in class folders, that the data has small copies of"
    )


def _train(parsed: argparse.Namespace) -> None:
    from train import evaluate, run  # torch's and captum's imports take seconds: only when asked

    options = arguments.build(Options, parsed)
    with run.processes() as rank:
        if rank:
            log.setLevel(logging.ERROR)
        folder = run.train(options, rank)
    if rank == 0:
        report = evaluate.evaluate(folder, parsed.judge == "test")
        log.info("report: %s\nnext: make archive serve", report)


def _evaluate(parsed: argparse.Namespace) -> None:
    from train import evaluate

    report = evaluate.evaluate(parsed.run, parsed.judge == "test", parsed.twins)
    log.info("report: %s", report)


def _crosscheck(parsed: argparse.Namespace) -> None:
    from train import evaluate

    evaluate.crosscheck_run(parsed.run, parsed.judge == "test")


def _explain_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, default=LATEST, help="the run's folder")
    parser.add_argument("--other", type=Path, help="a run of another seed, to compare maps with")
    parser.add_argument(
        "--published", type=Path, metavar="DATA",
        help="the networks in weights/ instead of a run's; DATA is what they were trained on",
    )  # fmt: skip
    parser.add_argument("--masks", type=Path, help="lungs of DATA (--published)")


def _explain_report(parsed: argparse.Namespace) -> None:
    from train import explain_report

    if parsed.published:
        report = explain_report.explain_published(parsed.published, parsed.masks)
    else:
        report = explain_report.explain_report(parsed.run, parsed.other)
    log.info("report: %s", report)


def _shortcuts_options(parser: argparse.ArgumentParser) -> None:
    _split_options(parser)
    parser.add_argument("--masks", type=Path, help="lungs: folder/<class>/<image's name>.png")
    parser.add_argument("--out", type=Path, default=Path("runs/shortcuts"), help="where to")
    _judge_option(parser)


def _shortcuts(parsed: argparse.Namespace) -> None:
    from train import run, shortcuts

    dataset = _dataset(parsed, shortcuts.SIZE)
    masks = run.masks_of(parsed.masks, dataset)
    open_test = parsed.judge == "test" and bool(len(dataset.rows("test")))
    log.info("report: %s", shortcuts.shortcuts(dataset, masks, parsed.out, open_test))


def _tune_options(parser: argparse.ArgumentParser) -> None:
    _split_options(parser)
    parser.add_argument("--masks", type=Path, help="lungs: folder/<class>/<image's name>.png")
    parser.add_argument("--network", choices=list(NETWORKS), default="resnet50", help="which")
    parser.add_argument("--trials", type=int, default=12, help="finished ones in all")
    parser.add_argument("--epochs", type=int, default=4, help="of a trial")
    parser.add_argument(
        "--confirm", action="store_true", help="train default and best with two new seeds, and say"
    )


def _tune(parsed: argparse.Namespace) -> None:
    from train import memory, run, tune

    memory.keep()
    dataset = _dataset(parsed, tune.SIZE)
    masks = run.masks_of(parsed.masks, dataset)
    task = tune.Task(parsed.network, dataset, masks, parsed.epochs, parsed.seed)
    study = tune.tune(task, parsed.trials)
    if parsed.confirm:
        tune.confirm(task, study)
    else:
        log.info("next: the same with --confirm; the best is the default only if it wins again")


def _archive_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run", type=Path, help="the run's folder; default: the last one, else weights/"
    )
    parser.add_argument("--networks", type=network_names, help="which; default: all there are")
    parser.add_argument("--version", default="1.0", help="of the archives, numbers and dots")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="where they go")
    parser.add_argument(
        "--engine",
        choices=["auto", *ENGINES],
        default="auto",
        help="what runs the graph; auto: the faster on this machine",
    )
    parser.add_argument(
        "--precision",
        choices=["f32", "f16", "int8"],
        default="f32",
        help="f16 is for a GPU, int8 is calibrated on training images; both are built only if "
        "that changes next to nothing",
    )
    parser.add_argument(
        "--data", type=Path, help="what the networks were trained on, for f16 and int8"
    )


def _archive(parsed: argparse.Namespace) -> None:
    from train import archive, checkpoint, graphs, together

    found = archive.sources(parsed.run, LATEST, checkpoint.PUBLISHED)
    running = graphs.Running(parsed.engine, parsed.precision, parsed.data)
    names = list(parsed.networks or found)
    if len(names) > 1 and together.NAME in found and together.NAME not in names:
        names.append(together.NAME)
    with tempfile.TemporaryDirectory() as exported:
        for name in names:
            if name not in found:
                raise graphs.ArchiveError(f"there is no trained {name}: make train first")
            path = archive.archive(
                found[name], parsed.version, parsed.store, Path(exported), running
            )
            log.info("%s, %.0f MB, from %s", path, path.stat().st_size / 1e6, found[name])
    log.info("next: make serve")


def _publish_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, default=LATEST, help="the run's folder")
    parser.add_argument("--networks", type=network_names, help="which; default: all of the run")


def _publish(parsed: argparse.Namespace) -> None:
    from train import publish

    publish.publish(parsed.run, parsed.networks)
    log.info("next: make archive serve")


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, default=Path("data/chest_xray"), help="where to")


def _data(parsed: argparse.Namespace) -> None:
    from train import fetch

    fetch.fetch(parsed.folder)
    log.info("next: make train archive serve")


def _phantom_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="where to")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other chests")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")


def _phantoms(parsed: argparse.Namespace) -> None:
    phantoms.write(parsed.folder, phantoms.COUNTS, parsed.seed, parsed.size)
    log.info("next: make train DATA=%s", parsed.folder)


def _split(parsed: argparse.Namespace) -> None:
    from train import data

    print(data.table(_dataset(parsed, 96)))


def _dataset(parsed: argparse.Namespace, size: int) -> "Dataset":
    """The data set that `_split_options` name, at a size in pixels."""
    from train import data

    return data.load(
        data_folder(parsed.data),
        size,
        seed=parsed.seed,
        patient=parsed.patient,
        skip_broken=parsed.skip_broken,
    )


def _split_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="folder with train/{NORMAL,PNEUMONIA} …")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--patient", help="regex on the file's name, or table.csv:column")
    parser.add_argument("--skip-broken", action="store_true", help="leave broken files out")


def _show_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", type=Path, help="a network's folder, e.g. runs/latest/resnet50")
    parser.add_argument("images", type=Path, help="a folder of images, or one image")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="where overlays go")


def _show(parsed: argparse.Namespace) -> None:
    from train import show

    answers, refused = show.show(parsed.weights, parsed.images, parsed.out)
    for answer in answers:
        print(f"{answer.probability:10.6f}  {answer.label:9}  {answer.path}")
    for path, why in refused.items():
        log.error("refused: %s: %s", path, why)
    log.info("overlays, answers.csv and gallery.png: %s", parsed.out)


VERBS = (
    Verb("train", "train the networks, then judge and cross-check them", _train_options, _train),
    Verb("evaluate", "judge a run again: figures, report, cards", _evaluate_options, _evaluate),
    Verb("crosscheck", "hook CAM against Captum's LayerGradCam", _run_option, _crosscheck),
    Verb(
        "explain-report",
        "are the maps of a run, or of weights/, right?",
        _explain_options,
        _explain_report,
    ),
    Verb("shortcuts", "what can be told without lungs", _shortcuts_options, _shortcuts),
    Verb("tune", "search the recipe's numbers, on block-select", _tune_options, _tune),
    Verb("archive", "pack a run's networks for TorchServe", _archive_options, _archive),
    Verb("publish", "a run's networks into weights/, half precision", _publish_options, _publish),
    Verb("show", "answers and overlays for a folder, without a server", _show_options, _show),
    Verb("data", "fetch Kaggle's chest X-rays", _data_options, _data),
    Verb("split", "verify a data set and print its split", _split_options, _split),
    Verb("phantoms", "write the built-in phantoms", _phantom_options, _phantoms),
)

if __name__ == "__main__":
    sys.exit(main())
