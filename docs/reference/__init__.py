"""The pages of the site that are made from the code and from notebooks.

`hooks.py` puts them into the site.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import dsdistill
from reference.commands import commands_page, networks_page
from reference.options import options_page
from reference.presets import protocols_page, recipes_page

_API = """\
# Python API

These names are public, and `dsdistill.__version__`. All else may change without notice. Errors that a user
can mend are `dsdistill.UserError`, with one line that says how.
"""


def api_page() -> str:
    """Return the page that mkdocstrings fills: every public name."""
    names = [name for name in dsdistill.__all__ if name != "__version__"]
    functions = [name for name in names if not inspect.isclass(getattr(dsdistill, name))]
    classes = [name for name in names if name not in functions]
    return _API + "".join(f"\n::: dsdistill.{name}\n" for name in [*functions, *classes])


def notebook_page(notebook: Path) -> str:
    """Return a notebook as Markdown, with a link to the notebook itself."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    heading, *rest = parts
    link = f"[This page as a notebook]({notebook.name}){{ .md-button download }}"
    return "\n\n".join([heading, link, *rest]) + "\n"


def pages(docs: Path) -> dict[str, str]:
    """Return all generated pages by their path in the site.

    Args:
        docs: the folder of the written pages; notebooks lie below it.
    """
    notebooks = sorted((docs / "notebooks").glob("*.ipynb"))
    return {
        "options.md": options_page(),
        "commands.md": commands_page(),
        "recipes.md": recipes_page(),
        "protocols.md": protocols_page(),
        "networks.md": networks_page(),
        "api.md": api_page(),
        **{f"notebooks/{each.stem}.md": notebook_page(each) for each in notebooks},
    }
