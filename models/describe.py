"""Summary of a model and its guide: ``python -m models.describe --model vrnn [--guide G] [key=value ...]``.

The command itself is `inference.describe`: it needs guides and settings, which lie above models.
"""

from __future__ import annotations

import sys
from importlib import import_module

if __name__ == "__main__":
    sys.exit(import_module("inference.describe").main())
