"""Benchmarks of Coral; run them with `make bench`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))  # the real servers and the corpus are the tests'
