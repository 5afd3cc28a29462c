"""The guides name files and link pages that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"]
)
CODE = re.compile(
    r"(?<![\w./-])((?:harness|adapters|backbones|benchmarks|tests|search_spaces)/[\w./-]+\.(?:py|toml|md|html))"
)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
MADE = re.compile(r"^```\w+ file=(\S+)$", re.MULTILINE)  # files whose text a guide shows


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    named = {path for path in CODE.findall(text) if "<" not in path} - set(MADE.findall(text))
    missing = sorted(path for path in named if not (ROOT / path).exists())
    links = {link for link in LINK.findall(text) if not (page.parent / link).exists()}
    assert (missing, sorted(links)) == ([], [])
