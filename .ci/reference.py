"""The verbs and flags of docs/reference.md, written from the parsers: `python .ci/reference.py`."""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from client.__main__ import parser as client_parser
from train.__main__ import parser as train_parser

REFERENCE = Path(__file__).parents[1] / "docs" / "reference.md"
BEGIN, END = "<!-- begin: verbs -->\n", "<!-- end: verbs -->\n"


def verbs(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """The verbs of a command line by name: the parser of each, and its line of help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return {name: (verb, lines[name]) for name, verb in action.choices.items()}
    raise ValueError(f"{parser.prog} has no verbs")


def flags(verb: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Each argument of a verb as the user types it, with its help."""
    formatter = verb._get_formatter()
    for action in verb._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if action.option_strings:
            name = action.option_strings[-1]
            if action.nargs != 0:
                name += " " + formatter._format_args(
                    action, formatter._get_default_metavar_for_optional(action)
                )
        else:
            name = formatter._format_args(
                action, formatter._get_default_metavar_for_positional(action)
            )
        line = formatter._expand_help(action) if action.help else ""
        yield name, re.sub(r" \(default: (None|False)\)$", "", line)


def section(program: str, parser: argparse.ArgumentParser) -> str:
    """The verbs of a command line, in Markdown."""
    parts = [f"## Verbs of `{program}`\n"]
    for name, (verb, line) in verbs(parser).items():
        rows = [f"| `{flag.replace('|', '/')}` | {text} |" for flag, text in flags(verb)]
        parts.append(f"**`{name}`**: {line}\n")
        if rows:
            parts.append("\n".join(["| argument | |", "| --- | --- |", *rows]) + "\n")
    return "\n".join(parts)


def text() -> str:
    """The generated part of the reference, in Markdown."""
    return "\n".join(
        [
            section("python -m train", train_parser()),
            section("python -m client", client_parser()),
        ]
    )


def replaced(document: str) -> str:
    """The text of the reference with a new generated part."""
    head, rest = document.split(BEGIN)
    return head + BEGIN + text() + END + rest.split(END)[1]


if __name__ == "__main__":
    REFERENCE.write_text(replaced(REFERENCE.read_text()))
    print(REFERENCE.name)
