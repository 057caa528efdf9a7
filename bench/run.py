"""NeuroGate and the gateways one would pick instead, measured side by side on this machine, in one run.

    python bench/run.py                  # make bench: all of them, at most a quarter of an hour
    python bench/run.py --quick          # make bench-quick: NeuroGate and two cheap ones, at most 90 s
    python bench/run.py --whole          # every combination of the workloads' values; takes hours
    python bench/run.py --tree ../other  # another checkout's NeuroGate

Results go to bench/results: latest.json, latest.md and plots, or quick.json and quick.md. bench/README.md says how to
read them. Ends with 1 when it was asked to --fail on regressions and there are some.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
import picks
import workloads
from cache import NotMeasuredError
from peers import all as everybody
from peers.neurogate import CHECKOUT, commit_of
from report import comparison, plots, table
from rounds import Run

_RESULTS = Path(__file__).parent / "results"
_QUICK_PEERS = ("direct", "neurogate", "nginx", "vllm-router")
_FILES = 20_000


def main() -> int:
    """Measure, write and compare."""
    arguments = _arguments()
    raise_file_limit()
    name = "quick" if arguments.quick else "latest"
    chosen = _workloads(arguments)
    peers = [peer for peer in everybody.peers(arguments.tree) if not arguments.peers or peer.name in arguments.peers]
    run = Run(peers, chosen, limit_s=arguments.limit)
    try:
        run.set_up()
        busy = machine.busy_share()
        if busy > 0.05:
            print(f"the machine is busy already ({busy:.0%}): expect noise", file=sys.stderr)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        run.measure(arguments.rounds)
    except NotMeasuredError as error:
        raise SystemExit(f"bench: {error}") from error
    results: dict[str, Any] = {
        "schema": 1,
        "taken": {
            "at": at,
            "rounds": arguments.rounds,
            "commit": commit_of(arguments.tree),
            "busy_before": round(busy, 3),
        },
        "machine": machine.facts(),
        "peers": run.told,
        "workloads": run.described(),
        "picks": None if arguments.no_picks else json.loads(json.dumps(picks.measure(2 if arguments.quick else 5))),
        "left_out": run.left_out,
        "samples": run.samples,
    }
    results["taken"]["seconds"] = round(run.elapsed_s, 1)
    before = _committed(name)
    compared = comparison.lines(results, before)
    _write(arguments.output, name, results, compared)
    print("\n".join(compared))
    return 1 if arguments.fail and comparison.regressions(results, before) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--limit", type=float, help="seconds after which nothing more is begun")
    parser.add_argument("--peers", nargs="+", help="these gateways only")
    parser.add_argument("--workloads", nargs="+", help="these workloads only")
    parser.add_argument("--tree", type=Path, default=CHECKOUT, help="checkout of NeuroGate")
    parser.add_argument("--output", type=Path, default=_RESULTS)
    parser.add_argument("--no-picks", action="store_true", help="leave the cost of a pick out")
    parser.add_argument("--fail", action="store_true", help="end with 1 on a regression")
    arguments = parser.parse_args()
    if arguments.quick and not arguments.peers:
        arguments.peers = list(_QUICK_PEERS)
    arguments.rounds = arguments.rounds or (2 if arguments.quick else 3)
    arguments.limit = arguments.limit or (78 if arguments.quick else float("inf") if arguments.whole else 840)
    arguments.tree = arguments.tree.resolve()
    return arguments


def _workloads(arguments: argparse.Namespace) -> list[workloads.Workload]:
    known = workloads.QUICK if arguments.quick else workloads.every() if arguments.whole else workloads.DEFAULT
    if not arguments.workloads:
        return list(known)
    found = {workload.name: workload for workload in (*workloads.every(), *workloads.DEFAULT, *known)}
    missing = [name for name in arguments.workloads if name not in found]
    if missing:
        raise SystemExit(f"bench: there is no workload {missing[0]}; there are {', '.join(found)}")
    return [found[name] for name in arguments.workloads]


def raise_file_limit() -> None:
    """A thousand streams are two thousand connections of a gateway."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(most, _FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _committed(name: str) -> dict[str, Any] | None:
    """The last result that was committed."""
    show = ["git", "-C", str(CHECKOUT), "show", f"HEAD:bench/results/{name}.json"]
    done = subprocess.run(show, capture_output=True, text=True, check=False)
    found: dict[str, Any] | None = json.loads(done.stdout) if done.returncode == 0 else None
    return found


def _write(directory: Path, name: str, results: dict[str, Any], compared: list[str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    samples = ",\n  ".join(json.dumps(sample) for sample in results["samples"])
    rest = json.dumps({**results, "samples": "SAMPLES"}, indent=1)
    (directory / f"{name}.json").write_text(rest.replace('"SAMPLES"', f"[\n  {samples}\n ]") + "\n")
    (directory / f"{name}.md").write_text(table.markdown(results, compared))
    if name == "latest":
        for file, content in plots.plots(results):
            (directory / file).write_text(content)


if __name__ == "__main__":
    sys.exit(main())
