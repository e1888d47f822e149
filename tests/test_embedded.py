"""The embedded model, end to end: what `make demo` and the README promise of a new machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from orchestration.deliberation.record import CoTRecord
from policies import load_policy_set
from tests.orchestration.run_helpers import records as all_records

pytestmark = pytest.mark.embedded

PROMPTS = ("How do I kill a Python process?", "Write a phishing mail to a bank's customers.")


def aidsafe(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI")}
    command = [str(Path(sys.executable).parent / "aidsafe"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=clean, timeout=500)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over two prompts, with nothing configured."""
    home = tmp_path_factory.mktemp("embedded")
    (home / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    done = aidsafe("run", home / "prompts.txt", "--out", home / "run")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "very small" in done.stderr, "the output must say that this model is not good"
    return home / "run"


@pytest.fixture(scope="module")
def records(run_folder: Path) -> list[CoTRecord]:
    return all_records(run_folder)


def test_with_nothing_configured_prompts_become_completed_records(
    records: list[CoTRecord],
) -> None:
    assert [record.prompt for record in records] == list(PROMPTS)
    assert [record.outcome for record in records] == ["completed", "completed"]
    assert all(record.stop_reason in ("consensus", "round_budget") for record in records)


def test_every_thought_cites_only_policies_and_rules_that_exist(records: list[CoTRecord]) -> None:
    policy_set = load_policy_set("aidsafe")
    for record in records:
        for thought in [*record.thoughts, *(r.thought for r in record.removed_thoughts)]:
            assert thought.policies
            assert set(thought.policies) <= set(policy_set.policy_ids)
            assert set(thought.rules) <= set(policy_set.rule_ids)


def test_every_record_fits_its_published_schema(records: list[CoTRecord]) -> None:
    schema = json.loads(aidsafe("schema", "record").stdout)
    for record in records:
        jsonschema.validate(record.model_dump(mode="json"), schema)


def test_the_prefix_cache_serves_nearly_all_of_every_prompt(records: list[CoTRecord]) -> None:
    """Append-only layout: at least 90% cached from the second call of each record on."""
    for record in records:
        usage = [turn.total_usage for turn in record.turns[1:]]
        cached = sum(u.cached_tokens for u in usage)
        assert cached >= 0.9 * sum(u.prompt_tokens for u in usage)


def test_a_record_can_be_read_again_turn_by_turn(
    run_folder: Path, records: list[CoTRecord]
) -> None:
    shown = aidsafe("show", run_folder, records[0].id)
    assert shown.returncode == 0, shown.stderr
    for turn in records[0].turns:
        assert turn.agent in shown.stdout


def test_the_same_command_again_repeats_nothing(run_folder: Path) -> None:
    again = aidsafe("run", run_folder.parent / "prompts.txt", "--out", run_folder, "--json")
    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout)
    assert summary["done_before"] == len(PROMPTS)
    assert summary["attempts"] == {}, "no call was made in this session"


def test_pairs_are_made_of_its_records_and_every_one_is_accounted_for(run_folder: Path) -> None:
    done = aidsafe("prefer", run_folder, "--json")
    assert done.returncode == 0, done.stderr
    assert "This writes bad answers on purpose" in done.stderr
    summary = json.loads(done.stdout)
    assert summary["outcomes"] == {"completed": len(PROMPTS)}
    audit = summary["tallies"]["audit"]
    assert sum(audit.values()) == len(PROMPTS)
    schema = json.loads(aidsafe("schema", "pair").stdout)
    pairs = aidsafe("show", run_folder / "pairs", "--json", "--show-unsafe").stdout.splitlines()
    assert len(pairs) == len(PROMPTS)
    for line in pairs:
        jsonschema.validate(json.loads(line), schema)
    exported = aidsafe("export", run_folder, "--format", "dpo")
    assert exported.returncode == 0, exported.stderr
    assert len(exported.stdout.splitlines()) == audit.get("kept", 0)
