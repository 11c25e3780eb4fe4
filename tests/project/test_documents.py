"""README and docs: links, figures, and the generated part of the reference."""

import re
from pathlib import Path

import pytest

from tests.project import scripts
from train.fitting.recipes import PRESETS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs/reference.md").read_text()
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
# They name files of earlier versions.
HISTORIES = ("CHANGELOG.md", "docs/log.md")

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
PATH = re.compile(
    r"`((?:train|handlers|client|arguments|tests|benchmarks|deploy|docs|\.ci)/[^`\s]+)`"
)
WILDCARDS = "<>{}*…"


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def anchors(document: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", names(DOCUMENTS))
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    document = ROOT / name
    for path, anchor in LINK.findall(document.read_text()):
        target = document.parent / path if path else document
        assert target.exists(), path
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text()), (path, anchor)


@pytest.mark.parametrize("name", [name for name in names(DOCUMENTS) if name not in HISTORIES])
def test_every_path_in_code_style_is_present(name: str) -> None:
    for path in PATH.findall((ROOT / name).read_text()):
        if not set(path) & set(WILDCARDS):
            assert (ROOT / path).exists(), path


def test_the_readme_is_short_and_starts_with_a_command() -> None:
    assert 800 <= len(README.split()) <= 1000
    before, _ = README.split("```sh\n", 1)
    assert before.count("\n") + 2 < 30  # the line of the first command


def test_the_results_table_is_that_of_the_report() -> None:
    report = (ROOT / "docs/results/published/report.md").read_text()
    section = report.split("## test:")[1].split("\n## ")[0]
    table = re.search(r"(?:^\|.+\n)+", section, re.MULTILINE)
    assert table
    assert table[0] in README


def test_the_results_table_has_every_published_network() -> None:
    weights = sorted((ROOT / "weights").glob("*.safetensors"))
    assert weights
    for file in weights:
        assert re.search(rf"^\| {file.stem} \|", README, re.MULTILINE)


def test_every_preset_is_in_the_reference() -> None:
    for preset in PRESETS:
        assert f"`{preset}`" in REFERENCE


def test_the_reference_of_verbs_is_up_to_date() -> None:
    reference = scripts.load("reference")
    assert reference.replaced(REFERENCE) == REFERENCE, "run python .ci/reference.py"
    for name in ("train", "client"):
        assert f"## Verbs of `python -m {name}`" in REFERENCE
