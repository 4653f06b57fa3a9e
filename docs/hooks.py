"""What MkDocs does besides rendering: pages from the code, and files of the repository that pages link to."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

import reference  # noqa: E402

ROOT = DOCS.parent
LINKED = (
    "CONTRIBUTING.md",
    "artifacts/*.md",
    "artifacts/*.json",
    "artifacts/*.svg",
    "artifacts/*.png",
    "artifacts/*/report.html",
    "artifacts/*/results.csv",
    "artifacts/*/table.md",
)
"""Files of the repository that become part of the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code, and the linked files of the repository."""
    for path, content in reference.pages(DOCS).items():
        files.append(File.generated(config, path, content=content))
    for pattern in LINKED:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links out of docs/ lead to the copies, and indent lists as Python-Markdown wants them."""
    source = page.file.src_uri
    if source.startswith(("artifacts/", "CONTRIBUTING")):
        return re.sub(r"^( +)(?=\S)", r"\1\1", markdown, flags=re.M)
    return markdown.replace("](../", "](") if "/" not in source else markdown
