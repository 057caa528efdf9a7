"""Write deploy/grafana/dashboards anew, or into another folder.

    python tools/dashboards/generate.py [--out FOLDER] [--docs URL]

`--docs` is where your people find docs/: links to the runbook begin with it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from keys import keys
from overview import overview
from request_path import request_path
from workers import workers

OUT = Path(__file__).resolve().parents[2] / "deploy/grafana/dashboards"
BOARDS = {"overview": overview, "workers": workers, "keys": keys, "request": request_path}


def text_of(name: str, docs: str) -> str:
    """One dashboard's file."""
    return (
        json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(BOARDS[name](docs))), indent=1, sort_keys=True) + "\n"
    )


def main() -> None:
    """Write them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--docs", default="docs")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name in BOARDS:
        (given.out / f"{name}.json").write_text(text_of(name, given.docs))


if __name__ == "__main__":
    main()
