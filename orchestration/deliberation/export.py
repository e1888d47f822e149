"""Records in the formats that training and publishing need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from orchestration.deliberation.record import CoTRecord
from orchestration.runs.export import Wrapping, message


def export_lines(records: Iterable[CoTRecord], form: str, wrapping: Wrapping) -> Iterator[str]:
    """One JSON object a line, for every `completed` record.

    Args:
        records: Any records; those of another outcome are left out.
        form: `records` is the whole record; `aidsafe` is prompt, thoughts and response, as the
            published data set has them; `sft` is chat messages, as TRL's SFTTrainer takes them.
        wrapping: How thoughts are written, and for `sft` put before the response.

    Yields:
        Lines without their line break.
    """
    for record in records:
        if record.outcome == "completed":
            yield json.dumps(_exported(record, form, wrapping), ensure_ascii=False)


def _exported(record: CoTRecord, form: str, wrapping: Wrapping) -> dict[str, Any]:
    if form == "records":
        return record.model_dump(mode="json")
    if form == "aidsafe":
        thoughts = "\n".join(map(wrapping.thought, record.thoughts))
        return {"prompt": record.prompt, "thoughts": thoughts, "response": record.response}
    said = wrapping.message_of(record.thoughts, record.response or "")
    return {"messages": [message("user", record.prompt), message("assistant", said)]}
