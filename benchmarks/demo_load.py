"""The demo under load: 100 sessions, 40 of the worst images at once, 1,000 forged requests; then its ends.

    python benchmarks/demo_load.py [--sessions 100] [--huge 40] [--forged 1000]

`geoaware demo` runs as a program of its own at 127.0.0.1. Its memory, with its children's, is read from /proc
twenty times a second, so this runs on Linux. The answers' times are of two images of 3 megapixels, brought
and matched, before and after the load.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.apps.demo.load import under_load


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, count in (("sessions", 100), ("huge", 40), ("forged", 1000)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--megapixels", type=float, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = under_load(Path(folder), given.sessions, given.huge, given.forged, given.megapixels)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
