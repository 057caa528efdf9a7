"""Reading streams as their clients do, without any of the product's own code: what was told, in every resumable API."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from neurogate.channel import Resume


@dataclass
class Told:
    """What a client takes from a stream, or from the beginning of one."""

    text: str = ""
    pieces: int = 0
    ids: set[str] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)
    created: set[int] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    fingerprints: set[str] = field(default_factory=set)
    """Of OpenAI's events; empty for one that has none."""
    roles: int = 0
    counts: list[int] = field(default_factory=list)
    """Of `/prompt`: tokens_generated."""
    finish_reasons: list[str] = field(default_factory=list)
    usages: list[tuple[int, int]] = field(default_factory=list)
    end_marks: int = 0

    def resume(self) -> Resume:
        """Where it stopped."""
        return Resume(
            self.text,
            self.pieces,
            next(iter(self.ids), ""),
            next(iter(self.created), 0),
            next(iter(self.models), ""),
            "".join(self.finish_reasons),
            bool(self.usages),
            system_fingerprint=next(iter(self.fingerprints), ""),
        )


def events_of(stream: bytes) -> list[bytes]:
    """A stream in whole events, or lines; comments are none."""
    end = b"\n" if stream.startswith(b"{") else b"\n\n"
    assert stream.endswith(end) or not stream
    return [event + end for event in stream.split(end)[:-1] if not event.startswith(b":")]


def read(stream: bytes) -> Told:
    """What a stream tells. Fails for one that goes on after its end, or contradicts itself."""
    told = Told()
    for event in events_of(stream):
        data = event.removeprefix(b"data: ").strip()
        assert not told.end_marks, "something follows the end mark"
        if data == b"[DONE]":
            told.end_marks += 1
        elif b'"choices"' in data:
            _read_chunk(told, json.loads(data))
        elif b'"request_id"' in data:
            _read_prompt(told, json.loads(data))
        else:
            _read_line(told, json.loads(data))
    return told


def _read_chunk(told: Told, chunk: dict[str, Any]) -> None:
    told.ids.add(chunk["id"])
    told.kinds.add(chunk["object"])
    told.created.add(chunk["created"])
    told.models.add(chunk["model"])
    told.fingerprints.add(chunk.get("system_fingerprint", ""))
    if chunk.get("usage"):
        assert chunk["choices"] == []
        assert not told.usages
        usage = chunk["usage"]
        told.usages.append((usage["prompt_tokens"], usage["completion_tokens"]))
        assert usage["total_tokens"] == sum(told.usages[0])
    for choice in chunk["choices"]:
        assert choice["index"] == 0
        text = choice["text"] if "text" in choice else choice["delta"].get("content", "")
        told.roles += "role" in choice.get("delta", {})
        assert not (text and told.finish_reasons)
        told.text += text
        told.pieces += bool(text)
        if choice["finish_reason"]:
            told.finish_reasons.append(choice["finish_reason"])


def _read_prompt(told: Told, event: dict[str, Any]) -> None:
    told.ids.add(event["request_id"])
    if event["done"]:
        told.models.add(event["model"])
        told.end_marks += 1
        told.finish_reasons.append(event["finish_reason"])
        told.usages.append((event["prompt_tokens"], event["completion_tokens"]))
        assert event["tokens"] == sum(told.usages[0])
    else:
        told.text += event["token"]
        told.pieces += 1
        told.counts.append(event["tokens_generated"])


def _read_line(told: Told, line: dict[str, Any]) -> None:
    told.models.add(line["model"])
    assert datetime.fromisoformat(line["created_at"]).tzinfo is not None
    text = line["response"] if "response" in line else line["message"]["content"]
    assert "response" in line or line["message"]["role"] == "assistant"
    told.text += text
    told.pieces += bool(text)
    if line["done"]:
        told.end_marks += 1
        told.finish_reasons.append(line["done_reason"])
        told.usages.append((line["prompt_eval_count"], line.get("eval_count", 0)))
        assert line["total_duration"] >= line["eval_duration"]
