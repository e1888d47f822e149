"""The scripts of the README run as they are printed there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint import Endpoint
from tests.orchestration.command import environment
from tests.orchestration.run_helpers import agree

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SCRIPTS = re.findall(
    r"```python\n(.*?)```", README.partition("\n## Scripts\n")[2].partition("\n## ")[0], re.DOTALL
)
GUEST = "It would work."


def reply(body: dict[str, Any]) -> Any:
    """Agrees, but for the guest, and for one deliberator who contests."""
    last = body["messages"][-1]["content"]
    if "You run servers" in str(body["messages"][0]):
        return GUEST
    if "now the risk_analyst" in last and "Contest this" in str(body["messages"]):
        dispute = [{"thought": 1, "reason": "It is too short."}]
        return agree(body) | {"verdict": "revise", "response": "Longer.", "dispute": dispute}
    return agree(body)


def run(number: int, folder: Path, endpoint: Endpoint) -> str:
    """What a script prints."""
    script = folder / "script.py"
    script.write_text(SCRIPTS[number], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script],
        cwd=folder,
        env=environment(OPENAI_BASE_URL=endpoint.base_url, OPENAI_API_KEY="any"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_three_and_each_is_short() -> None:
    assert len(SCRIPTS) == 3
    assert all(len(script.splitlines()) <= 35 for script in SCRIPTS)


def test_one_chat_is_streamed_and_its_record_printed(tmp_path: Path) -> None:
    with Endpoint(reply=reply) as endpoint:
        printed = run(0, tmp_path, endpoint)
    for agent in ("intent_analyst", "drafter", "policy_auditor", "refiner"):
        assert f"({agent})" in printed or f"{agent}" in printed
    assert "completed, stopped by consensus after 1 round" in printed
    assert "Response: The first response." in printed


def test_a_guest_of_another_class_joins_the_circle(tmp_path: Path) -> None:
    with Endpoint(reply=reply) as endpoint:
        printed = run(1, tmp_path, endpoint)
        asked = [call.body for call in endpoint.calls if call.body]
    assert "sysadmin guest" in printed
    assert "policy_auditor deliberator accepts" in printed
    assert "completed, stopped by" in printed
    assert any("You run servers." in json.dumps(body) for body in asked)


@pytest.mark.parametrize("sessions", [1, 2])
def test_many_prompts_become_a_run_that_can_be_continued(tmp_path: Path, sessions: int) -> None:
    texts = ["Contest this.", "Prompt 1?", "Prompt 2?"]
    lines = "".join(json.dumps({"prompt": text}) + "\n" for text in texts)
    (tmp_path / "prompts.jsonl").write_text(lines)
    with Endpoint(reply=reply) as endpoint:
        for _ in range(sessions):
            printed = run(2, tmp_path, endpoint)
        calls = endpoint.counts["ok"]
    assert "2 of 3 ended in consensus" in printed
    assert printed.count("completed consensus") == 2
    assert "Functional termination condition met" in printed
    assert calls == 18, "the second session calls nothing"
