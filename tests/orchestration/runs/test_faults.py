"""What a run promises where every fifth call goes wrong, in every way there is."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

from orchestration.chat.deliberation_chat import DeliberationChat
from orchestration.journal import FILE_NAME, Journal
from tests.endpoint import Endpoint, Fault
from tests.orchestration.run_helpers import agree, cast_at, execute, prompts, records

PROMPTS, CONCURRENCY = 500, 100
SEEN_BY_AGENTS = [
    Fault.EMPTY_CONTENT,
    Fault.LENGTH,
    Fault.CONTENT_FILTER,
    Fault.REFUSAL,
    Fault.REFUSAL_FIELD,
]
THROTTLED = [Fault.RATE_LIMITED, Fault.RATE_LIMITED_RETRY_AFTER]
FAILING = [Fault.SERVER_ERROR, Fault.UNAVAILABLE]
BROKEN_OFF = [Fault.RESET, Fault.CUT_BODY, Fault.INVALID_JSON, Fault.WRONG_SHAPE]
KINDS = [*SEEN_BY_AGENTS, *THROTTLED, *FAILING, *BROKEN_OFF, Fault.HANG]


def live_chats() -> list[DeliberationChat]:
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, DeliberationChat)]


async def test_with_every_fifth_call_faulty_every_prompt_has_an_outcome_and_most_a_record(
    folder: Path,
) -> None:
    chats: list[int] = []
    before = live_chats()  # of other tests; kept alive, so that no chat here gets their ids
    others = {id(chat) for chat in before}

    def count_chats(_: object) -> None:
        if len(chats) % 100 == 0:
            chats.append(sum(id(chat) not in others for chat in live_chats()))
        else:
            chats.append(0)

    rates = dict.fromkeys(KINDS, 0.2 / len(KINDS))
    with Endpoint(
        reply=agree, latency=0.005, fault_rates=rates, retry_after=0.1, keep_bodies=False
    ) as endpoint:
        cast = cast_at(endpoint, max_retries=8, timeout=None)  # both are defaults
        summary = await execute(folder, cast, prompts(PROMPTS), CONCURRENCY, on_result=count_chats)

    assert len(records(folder)) == sum(summary.outcomes.values()) == PROMPTS
    assert summary.outcomes["completed"] >= 0.95 * PROMPTS, summary.outcomes
    assert set(summary.outcomes) <= {"completed", "refused", "malformed", "truncated", "failed"}
    assert max(chats) <= CONCURRENCY + 1, "chats that have ended are let go"

    # Nothing that the endpoint served is missing from the books, and nothing was made up.
    served, attempts = endpoint.counts, summary.attempts
    answered = served["ok"] + sum(served[fault] for fault in SEEN_BY_AGENTS)
    unusable = served[Fault.WRONG_SHAPE]  # and billed
    assert attempts["answered"] == answered
    assert (summary.calls, summary.unusable_calls) == (answered + unusable, unusable)
    assert summary.abandoned_calls == served[Fault.HANG]
    assert attempts["throttled"] == sum(served[fault] for fault in THROTTLED)
    assert attempts["server_error"] == sum(served[fault] for fault in FAILING)
    assert attempts["timeout"] == served[Fault.HANG]
    assert attempts["connection"] + attempts["unusable"] == sum(served[f] for f in BROKEN_OFF)
    assert Counter(attempts).total() == endpoint.stats["calls"]
    journal = Journal(folder / FILE_NAME)
    assert sum(row.calls for row in journal.spend()) == answered + unusable
    journal.close()
