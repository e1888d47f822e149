"""What the tests of the reader of prompts share."""

from __future__ import annotations

import json
from pathlib import Path

from orchestration.prompts.reader import PromptReader

GOOD = '{"prompt": "good"}\n'


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def write_jsonl(path: Path, *rows: object) -> str:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def texts(reader: PromptReader) -> list[str]:
    return [prompt.text for prompt in reader]
