"""`python -m train VERB`: everything from images to archives."""

import argparse
import logging
import sys

from train.commands import VERBS

log = logging.getLogger("train")


def main(argv: list[str] | None = None) -> int:
    """Run a verb; returns its exit status.

    Errors that a user can fix are printed without a traceback, unless --traceback is given.
    """
    parsed = parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)  # not the root logger's: the exporter logs every step
    try:
        parsed.run_verb(parsed)
    except KeyboardInterrupt:
        log.error("stopped; the same command continues from here")
        return 130
    except (OSError, ValueError, RuntimeError) as error:
        if parsed.traceback:
            raise
        log.error("error: %s", error)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs and their options."""
    top = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    verbs = top.add_subparsers(metavar="VERB", required=True)
    for verb in VERBS:
        verb_parser = verbs.add_parser(
            verb.name,
            help=verb.help,
            description=verb.help,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        verb.add_options(verb_parser)
        verb_parser.add_argument(
            "--traceback", action="store_true", help="show where an error arose"
        )
        verb_parser.set_defaults(run_verb=verb.run)
    return top


if __name__ == "__main__":
    sys.exit(main())
