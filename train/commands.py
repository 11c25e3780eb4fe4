"""The verbs of `python -m train`.

Each imports what it needs when it runs: the imports of torch and captum take seconds.
"""

import argparse
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import arguments
from train import command_options as options
from train.data import phantoms
from train.fitting.options import Options, data_folder

log = logging.getLogger("train")

if TYPE_CHECKING:
    from train.data.dataset import Dataset


@dataclass(frozen=True)
class Verb:
    """A verb of the command line."""

    name: str
    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def _train(parsed: argparse.Namespace) -> None:
    from train.fitting import process_group, runs
    from train.report import pipeline

    run_options = arguments.build(Options, parsed)
    with process_group.processes() as rank:
        if rank:
            log.setLevel(logging.ERROR)
        folder = runs.train(run_options, rank)
    if rank == 0:
        report = pipeline.evaluate(folder, parsed.judge == "test")
        log.info("report: %s\nnext: make archive serve", report)


def _evaluate(parsed: argparse.Namespace) -> None:
    from train.report import pipeline

    report = pipeline.evaluate(parsed.run, parsed.judge == "test", parsed.twins)
    log.info("report: %s", report)


def _crosscheck(parsed: argparse.Namespace) -> None:
    from train.report import pipeline

    pipeline.crosscheck_run(parsed.run, parsed.judge == "test")


def _explain_report(parsed: argparse.Namespace) -> None:
    from train.report import cam_report

    if parsed.published:
        report = cam_report.explain_published(parsed.published, parsed.masks)
    else:
        report = cam_report.explain_report(parsed.run, parsed.other)
    log.info("report: %s", report)


def _shortcuts(parsed: argparse.Namespace) -> None:
    from train.fitting import runs
    from train.report import baselines

    dataset = _dataset(parsed, baselines.SIZE)
    masks = runs.load_masks(parsed.masks, dataset)
    open_test = parsed.judge == "test" and bool(len(dataset.rows("test")))
    log.info("report: %s", baselines.write_report(dataset, masks, parsed.out, open_test))


def _tune(parsed: argparse.Namespace) -> None:
    from train import tune
    from train.fitting import allocator, runs

    allocator.keep_freed_memory()
    dataset = _dataset(parsed, tune.SIZE)
    masks = runs.load_masks(parsed.masks, dataset)
    task = tune.Task(parsed.network, dataset, masks, parsed.epochs, parsed.seed)
    study = tune.tune(task, parsed.trials)
    if parsed.confirm:
        tune.confirm(task, study)
    else:
        log.info("next: the same with --confirm; the best replaces the default if it wins again")


def _archive(parsed: argparse.Namespace) -> None:
    from train.evaluation import ensemble
    from train.model import checkpoint
    from train.package import archive, graph

    sources = archive.sources(parsed.run, options.LATEST, checkpoint.PUBLISHED)
    graph_options = graph.GraphOptions(parsed.engine, parsed.precision, parsed.data)
    names = list(parsed.networks or sources)
    if len(names) > 1 and ensemble.NAME in sources and ensemble.NAME not in names:
        names.append(ensemble.NAME)
    with tempfile.TemporaryDirectory() as exported:
        for name in names:
            if name not in sources:
                raise graph.ArchiveError(f"there is no trained {name}: make train first")
            path = archive.archive(
                sources[name], parsed.version, parsed.store, Path(exported), graph_options
            )
            log.info("%s, %.0f MB, from %s", path, path.stat().st_size / 1e6, sources[name])
    log.info("next: make serve")


def _publish(parsed: argparse.Namespace) -> None:
    from train.package import publish

    publish.publish(parsed.run, parsed.networks)
    log.info("next: make archive serve")


def _show(parsed: argparse.Namespace) -> None:
    from train import predict

    answers, refused = predict.show(parsed.weights, parsed.images, parsed.out)
    for answer in answers:
        print(f"{answer.probability:10.6f}  {answer.label:9}  {answer.path}")
    for path, reason in refused.items():
        log.error("refused: %s: %s", path, reason)
    log.info("overlays, answers.csv and gallery.png: %s", parsed.out)


def _data(parsed: argparse.Namespace) -> None:
    from train.data import kaggle

    kaggle.fetch(parsed.folder)
    log.info("next: make train archive serve")


def _split(parsed: argparse.Namespace) -> None:
    from train.data import dataset

    print(dataset.table(_dataset(parsed, 96)))


def _phantoms(parsed: argparse.Namespace) -> None:
    phantoms.write(parsed.folder, phantoms.COUNTS, parsed.seed, parsed.size)
    log.info("next: make train DATA=%s", parsed.folder)


def _dataset(parsed: argparse.Namespace, size: int) -> "Dataset":
    """The data set of the options of `split`, at a size in pixels."""
    from train.data import dataset

    return dataset.load(
        data_folder(parsed.data),
        size,
        seed=parsed.seed,
        patient=parsed.patient,
        skip_broken=parsed.skip_broken,
    )


VERBS = (
    Verb("train", "train, evaluate and cross-check the networks", options.train, _train),
    Verb("evaluate", "evaluate a run again: figures, report, cards", options.evaluate, _evaluate),
    Verb("crosscheck", "hook CAM against Captum's LayerGradCam", options.crosscheck, _crosscheck),
    Verb(
        "explain-report",
        "test the maps of a run, or of weights/",
        options.explain_report,
        _explain_report,
    ),
    Verb("shortcuts", "baselines that don't need the lungs", options.shortcuts, _shortcuts),
    Verb("tune", "search the recipe's numbers, on block-select", options.tune, _tune),
    Verb("archive", "pack a run's networks for TorchServe", options.archive, _archive),
    Verb(
        "publish",
        "publish a run's networks to weights/, in half precision",
        options.publish,
        _publish,
    ),
    Verb("show", "answers and overlays for a folder, without a server", options.show, _show),
    Verb("data", "fetch Kaggle's chest X-rays", options.data, _data),
    Verb("split", "verify a data set and print its split", options.split, _split),
    Verb("phantoms", "write the built-in phantoms", options.phantoms, _phantoms),
)
