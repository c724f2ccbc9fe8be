"""Public DVAE checkpoints as runs: ``python -m models.published CHECKPOINT CONFIG.ini --run RUN``.

The command itself is `inference.published`: it needs guides and settings, which lie above models.
"""

from __future__ import annotations

import sys
from importlib import import_module

if __name__ == "__main__":
    sys.exit(import_module("inference.published").main())
