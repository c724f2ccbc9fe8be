"""The hook of mkdocs.yml: adds the generated pages to the site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def on_files(files: Any, *, config: Any) -> Any:
    """Called by mkdocs with the files of the site; returns them with the generated pages."""
    from mkdocs.structure.files import File

    root = str(Path(__file__).resolve().parents[2])
    if root not in sys.path:  # mkdocs imports this file alone
        sys.path.insert(0, root)
    from docs.generator import pages

    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files
