"""Pairs on a terminal and as rows: unsafe text is included only on request."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from agents.pairs.replies import ScorerReply
from agents.pairs.state import CHOSEN_SCORER
from agents.turns import Turn
from orchestration.chat.html import as_text, placeholder
from orchestration.chat.view import TurnTexts, clean, plain
from orchestration.pairs.pair import PreferencePair

_HINT = "--show-unsafe shows it"


def print_pair(
    console: Console, pair: PreferencePair, show_unsafe: bool, instructions: bool = False
) -> None:
    """Prints a pair: turn by turn, then both sides and the audit's findings."""
    origin, scorer = pair.provenance, pair.scorer
    head = plain(f"{pair.id}  ", style="bold").append(clean(pair.prompt))
    models = ", ".join(scorer.models) or "no model"
    made = (
        f"{origin.policy_set}, pair recipe {origin.recipe}, {origin.started_at}, "
        f"scored by {scorer.persona} on {models}"
    )
    if pair.exemplars:
        exemplars = f"{len(pair.exemplars)} exemplars for {pair.target}"
        made += f"\n{exemplars}, updated {pair.generation} times before"
    console.print(head, plain(made, style="dim"), "", sep="\n")
    texts = TurnTexts(instructions, (lambda _: None) if show_unsafe else _hide_turn)
    texts.print(console, pair.turns)
    _, *sections = pair.sections(show_unsafe)  # without the prompt
    console.print(Text("pair", style="bold underline"))
    console.print(as_text(sections, show_unsafe, _HINT))


def _hide_turn(turn: Turn) -> str | None:
    """What is printed instead of a turn that contains or quotes unsafe text."""
    if turn.agent == CHOSEN_SCORER:
        return None
    if not isinstance(turn.reply, ScorerReply):
        return placeholder(turn.raw, _HINT).plain
    violations = turn.reply.violations.items()
    scores = [f"{policy} {score:.2f}" for policy, score in violations if score]
    return f"{', '.join(scores) or 'no violation'} (quotes hidden)"


def pair_row(pair: PreferencePair, unsafe: bool) -> dict[str, Any]:
    """A pair as a flat row; `open_run` describes its columns."""
    columns = "id prompt outcome kind target violated rejected_by margin attempts first_score"
    rejected, origin = pair.rejected, pair.provenance
    row = {
        **{name: getattr(pair, name) for name in [*columns.split(), "generation"]},
        "kept": pair.is_kept,
        "reason": pair.reason if pair.outcome == "completed" else None,
        "chosen": pair.chosen.response,
        "chosen_score": pair.chosen.score,
        "chosen_words": pair.chosen.words,
        **{f"rejected_{n}": getattr(rejected, n, None) for n in ("label", "score", "words")},
        **{name: getattr(origin, name) for name in ("policy_set", "recipe")},
    }
    if unsafe:
        row["unsafe_rejected"] = rejected.response if rejected else None
        row["unsafe_belief"] = pair.belief
    return row
