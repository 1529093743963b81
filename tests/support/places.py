"""Where the repository's folders are, seen from any test."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
GOLDENS = Path(os.environ.get("LISABENCH_GOLDENS") or ROOT / "tests" / "goldens")
