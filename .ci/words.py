"""Check that identifiers are nouns and verbs of the field. Exit status 1 if too many are not.

An identifier is split at underscores and capitals. A *private* word is a pronoun, participle or
adverb, which names nothing ("one", "found", "said"); an *empty* word is a noun that could stand for
anything ("item", "data").
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_PRIVATE_WORDS = """
one ones found said say its theirs ours asked told known given wanted begun bears borne caught there
those these others other another how what which who whose where when their them they it he she thing
things anew beside apart
"""
_EMPTY_WORDS = "item items data obj thing res val tmp foo stuff"
PRIVATE = frozenset(_PRIVATE_WORDS.split())
EMPTY = frozenset(_EMPTY_WORDS.split())
MOST_PRIVATE = 0.005  # share of a folder's identifiers
MOST_EMPTY = 0.012
FOLDERS = {
    "product": ("train", "handlers", "client", "arguments"),
    "tests": ("tests",),
    "benchmarks": ("benchmarks",),
}

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def identifiers(source: str) -> Iterator[str]:
    """The names that a module's source defines and uses, attributes and parameters included."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                yield name
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                yield name


def words(identifier: str) -> set[str]:
    """The words of an identifier, in lower case."""
    return {word.lower() for word in _WORD.findall(identifier)}


def shares(names: list[str]) -> tuple[float, float]:
    """The shares (0..1) of names with a private word, and with an empty one."""
    private = sum(bool(words(name) & PRIVATE) for name in names)
    empty = sum(bool(words(name) & EMPTY) for name in names)
    return private / max(1, len(names)), empty / max(1, len(names))


def main(root: Path = Path()) -> int:
    """Print the shares of each group of folders; 1 if one is above its limit, else 0."""
    status = 0
    for group, folders in FOLDERS.items():
        files = [file for folder in folders for file in sorted((root / folder).rglob("*.py"))]
        names = [name for file in files for name in identifiers(file.read_text())]
        private, empty = shares(names)
        allowed = private <= MOST_PRIVATE and (empty <= MOST_EMPTY or group != "product")
        print(f"{group}: {len(names)} identifiers, private {private:.2%}, empty {empty:.2%}")
        if not allowed:
            status = 1
            offenders = Counter(name for name in names if words(name) & (PRIVATE | EMPTY))
            most = ", ".join(f"{name} ({count})" for name, count in offenders.most_common(12))
            print(f"  too many: at most {MOST_PRIVATE:.1%} and {MOST_EMPTY:.1%}. Rename {most}")
    return status


if __name__ == "__main__":
    sys.exit(main())
