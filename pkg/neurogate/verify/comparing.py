"""Two sequences that should be one: what differs, named as precisely as can be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from neurogate.verify.report import Report, excerpt


def compare_parts(report: Report, call: str, direct: Sequence[bytes], proxy: Sequence[bytes]) -> None:
    """Count, order and bytes of the pieces of an answer: each difference is told as one of the three."""
    count = order = content = ""
    if len(direct) != len(proxy):
        count = f"{len(direct)} directly, {len(proxy)} through the proxy; {_lost_and_found(direct, proxy)}"
    elif Counter(direct) == Counter(proxy):
        order = _first_difference(direct, proxy)
    else:
        content = _first_difference(direct, proxy)
    report.compared("count", call, count)
    report.compared("order", call, order)
    report.compared("bytes", call, content)


def _first_difference(direct: Sequence[bytes], proxy: Sequence[bytes]) -> str:
    for number, (one, other) in enumerate(zip(direct, proxy, strict=True), 1):
        if one != other:
            at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), -1)
            near = slice(max(at - 40, 0), at + 60) if at >= 0 else slice(None)
            return f"part {number} is {excerpt(one[near])} directly, {excerpt(other[near])} through the proxy"
    return ""


def _lost_and_found(direct: Sequence[bytes], proxy: Sequence[bytes]) -> str:
    lost, found = Counter(direct) - Counter(proxy), Counter(proxy) - Counter(direct)
    told = []
    if lost:
        told.append(f"lost {excerpt(next(iter(lost)))}")
    if found:
        told.append(f"found {excerpt(next(iter(found)))}")
    return ", ".join(told) or "pieces are repeated"
