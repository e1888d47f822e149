"""What plan, run, status and retry print: limits, prices, changed settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from orchestration.cli.exit_codes import ExitCode
from tests.endpoint import Endpoint
from tests.orchestration.command import Done, aidsafe, make_run, models_file, prompts_file
from tests.orchestration.run_helpers import CALLS_PER_CHAT, agree


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint where all agents agree."""
    with Endpoint(reply=agree) as endpoint:
        yield endpoint


def run(folder: Path, endpoint: Endpoint, *more: str, prompts: int = 3) -> Done:
    """`aidsafe run` over that many prompts at an endpoint."""
    at = ("--base-url", endpoint.base_url, "--model", "m")
    return aidsafe("run", prompts_file(folder, prompts), "--out", folder / "run", *at, *more)


# Settings that change ----------------------------------------------------------------------------


def test_changed_settings_are_reported_and_only_changed_requests_are_repeated(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    run(tmp_path, endpoint)
    shipped = aidsafe("personas", "show", "refiner").out
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "refiner.yaml").write_text(
        shipped.replace("instructions: |", "instructions: |\n  Hm.", 1)
    )
    more = ("--personas", str(mine))

    dry = run(tmp_path, endpoint, *more, "--dry-run", "--json")
    assert dry.json == {
        "prompts": 3,
        "unchanged": 0,
        "changed": 3,
        "unfinished": 0,
        "replies_used": 3 * (CALLS_PER_CHAT - 1),
        "replies_replaced": 3,
    }
    text = run(tmp_path, endpoint, *more, "--dry-run")
    assert "replies that are requested again  3" in text.out
    assert "About 3 calls" in text.err
    assert endpoint.counts == {"ok": 3 * CALLS_PER_CHAT}

    done = run(tmp_path, endpoint, *more)
    assert done.code == 0
    assert "had other personas (refiner). All its prompts are processed again" in done.err
    assert "15 replies taken from the journal" in done.out
    assert endpoint.counts == {"ok": 3 * CALLS_PER_CHAT + 3}
    assert "had other" not in run(tmp_path, endpoint, *more).err


# Limits ------------------------------------------------------------------------------------------


def test_a_limit_is_exit_code_7_and_a_higher_one_resumes(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    done = run(tmp_path, endpoint, "--max-tokens", "5000", "--json")
    assert done.code == ExitCode.LIMIT
    why = done.json["why_stopped"]
    assert re.fullmatch(r"--max-tokens 5000 leaves no room for another call \(\d+ spent\)\.", why)
    assert done.json["usage"]["prompt_tokens"] + done.json["usage"]["completion_tokens"] <= 5000
    assert f"Error: {why}\nRaise the limit. Resume" in done.err
    calls = endpoint.counts["ok"]
    again = run(tmp_path, endpoint, "--max-tokens", "5000")
    assert again.code == ExitCode.LIMIT
    assert "leaves no room for another call" in again.err
    assert endpoint.counts["ok"] == calls
    assert run(tmp_path, endpoint, "--json").json["outcomes"] == {"completed": 3}
    assert endpoint.counts["ok"] == 3 * CALLS_PER_CHAT


def test_a_price_shows_the_cost_and_can_limit_it(endpoint: Endpoint, tmp_path: Path) -> None:
    done = run(tmp_path, endpoint, "--price", "1000,2000,500", "--json")
    usage = done.json["usage"]
    cost = (usage["prompt_tokens"] - usage["cached_tokens"]) * 1000
    cost += usage["cached_tokens"] * 500 + usage["completion_tokens"] * 2000
    assert done.json["cost"] == {"USD": pytest.approx(cost / 1e6, rel=1e-6)}
    assert " USD" in run(tmp_path, endpoint, "--price", "1000,2000").out
    limited = run(tmp_path, endpoint, "--price", "1,2", "--max-cost", "1", prompts=9)
    assert limited.code == ExitCode.LIMIT


@pytest.mark.parametrize("time", ["90m", "8h", "2d", "1.5h", "30"])
def test_times_have_units(time: str, endpoint: Endpoint, tmp_path: Path) -> None:
    assert run(tmp_path, endpoint, "--max-time", time, prompts=1).code == 0


# Status ------------------------------------------------------------------------------------------


def test_the_status_is_text_or_json(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    text = aidsafe("status", folder)
    assert (text.code, "3 of 3" in text.out) == (0, True)
    assert text.err.startswith("Finished at ")
    schema = Draft202012Validator(aidsafe("schema", "summary").json)
    program = aidsafe("status", folder, "--json").json
    schema.validate(program)
    assert program["outcomes"] == {"completed": 3}


# Retry -------------------------------------------------------------------------------------------


def test_a_retry_needs_only_the_folder(tmp_path: Path) -> None:
    sorry = "I'm sorry, but I can't help with that."
    with Endpoint(reply=lambda _: sorry) as endpoint:
        models = models_file(tmp_path, endpoint)
        first = aidsafe(
            *("run", prompts_file(tmp_path), "--out", tmp_path / "run", "--models", models)
        )
        assert first.code == ExitCode.NOT_COMPLETED
        command = f"aidsafe retry {tmp_path / 'run'} --outcome refused"
        assert f"Retry:    {command}" in first.out
        models.unlink()
        endpoint.reply = agree
        again = aidsafe(*command.split()[1:], "--json")
    assert again.code == 0, again.err
    assert again.json["outcomes"] == {"completed": 3}


# Plan --------------------------------------------------------------------------------------------


def plan(folder: Path, endpoint: Endpoint, *more: str) -> Done:
    at = ("--base-url", endpoint.base_url, "--model", "m")
    prompts = prompts_file(folder, 12)
    return aidsafe("plan", prompts, "--out", folder / "run", "--pilot", "4", *at, *more)


def test_the_pilot_of_a_plan_counts_as_work_done(endpoint: Endpoint, tmp_path: Path) -> None:
    done = plan(tmp_path, endpoint, "--price", "2,8,0.5")
    assert done.code == 0, done.err
    assert "For the 8 of 12 prompts that have no outcome yet, from a pilot of 4" in done.out
    for words in ("calls", "prompt tokens", "of them cached", "cost, USD", "time, 16 chats"):
        assert words in done.out
    assert endpoint.counts == {"ok": 4 * CALLS_PER_CHAT}
    assert run(tmp_path, endpoint, prompts=12).code == 0
    assert endpoint.counts == {"ok": 12 * CALLS_PER_CHAT}


def test_without_a_price_a_plan_has_no_cost_and_the_reason(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    done = plan(tmp_path, endpoint)
    assert "cost," not in done.out
    assert "No price is configured, so there is no cost: --price" in done.out


def test_a_plan_can_be_json(endpoint: Endpoint, tmp_path: Path) -> None:
    found = plan(tmp_path, endpoint, "--price", "2,8", "--json").json
    assert (found["prompts"], found["pending"], found["pilot"]) == (12, 8, 4)
    assert found["calls"] == {"expected": 48, "low": 48, "high": 48}
    assert found["cost"]["USD"]["low"] <= found["cost"]["USD"]["expected"]
    assert found["unpriced"] == []


def test_a_pilot_without_a_completed_record_is_exit_code_6(tmp_path: Path) -> None:
    with Endpoint(reply=lambda _: "No JSON.") as endpoint:
        done = plan(tmp_path, endpoint)
    assert done.code == ExitCode.NOT_COMPLETED
    assert "malformed" in done.out
