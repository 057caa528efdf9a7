"""Fuzz a fleet of a gateway and simulated workers by its own OpenAPI document: `make fuzz`, and shorter in the tests.

    python tests/fuzz_openapi.py --cases 5000 --seed 1

Prints what schemathesis found; the exit code is its own, or 1 when fewer cases ran than were asked for.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys

from clients_support import INSTANT, unmeasured
from cluster import KEY, Cluster

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
)
_CASES = re.compile(r"(\d+) generated")


def fuzz(url: str, *, examples: int, seed: int, deterministic: bool) -> tuple[int, int, str]:
    """(exit code, cases, report) of one run with so many examples of each operation."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
        *("--checks", ",".join(CHECKS)),
        *("--phases", "examples,coverage,fuzzing"),
        *("--max-examples", str(examples)),
        *("--header", f"Authorization: Bearer {KEY}"),
        *("--warnings", "off", "--no-color"),
        *(["--generation-deterministic"] if deterministic else ["--seed", str(seed), "--generation-database", "none"]),
    ]
    done = subprocess.run(command, env=unmeasured(), capture_output=True, text=True, check=False)
    found = _CASES.search(done.stdout)
    return done.returncode, int(found.group(1)) if found else 0, done.stdout + done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz a gateway by its OpenAPI document.")
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--examples", type=int, default=150, help="of each operation, in the fuzzing phase")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with Cluster(2, **INSTANT) as cluster:
        code, cases, report = fuzz(cluster.url, examples=asked.examples, seed=asked.seed, deterministic=False)
    print(report)
    if cases < asked.cases:
        print(f"only {cases} cases ran; raise --examples", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
