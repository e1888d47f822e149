"""Pairs as a person reads them: what was made bad on purpose is shown only if it is asked for."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from agents.pair_replies import ClassifierReply, JudgeReply
from agents.pairing import violations
from agents.turns import Turn
from orchestration.pairs.pair import PreferencePair, Side
from orchestration.pairs.recipe import CHOSEN_SCORER, OVER_REFUSAL
from orchestration.view import TurnPrinter, clean, plain

PAIR_COLUMNS = ("id", "outcome", "pair", "target", "score", "margin", "attempts", "prompt")


def pair_cells(pair: PreferencePair) -> list[str]:
    """A pair's row in a list, without its id and prompt."""
    score = pair.rejected.score if pair.rejected is not None else None
    return [
        pair.outcome,
        pair.reason if pair.outcome == "completed" else "",
        pair.target,
        "" if score is None else f"{score:.2f}",
        "" if pair.margin is None else f"{pair.margin:.2f}",
        str(pair.attempts),
    ]


def print_pair(
    console: Console, pair: PreferencePair, show_unsafe: bool, instructions: bool = False
) -> None:
    """A whole pair: turn by turn, then both sides and what the audit found."""
    console.print(plain(f"{pair.id}  ", style="bold").append(clean(pair.prompt)))
    origin = pair.provenance
    console.print(
        plain(
            f"{origin.policy_set}, pair recipe {origin.recipe}, {origin.started_at}, scored by "
            f"{pair.scorer.persona} on {', '.join(pair.scorer.models) or 'nothing'}",
            style="dim",
        )
    )
    if pair.exemplars:
        console.print(
            plain(
                f"{len(pair.exemplars)} exemplars for {pair.target}, updated {pair.generation} "
                "times before",
                style="dim",
            )
        )
    console.print()
    printer = TurnPrinter(console, instructions, (lambda _: None) if show_unsafe else _veil)
    for turn in pair.turns:
        printer.print(turn)
    console.print(Text("pair", style="bold underline"))
    if pair.outcome != "completed":
        # An endpoint's or a parser's words may quote what was said.
        who = pair.turns[-1].agent if pair.turns else "the first turn"
        why = pair.problem or "" if show_unsafe else who
        console.print(plain(f"{pair.outcome}: {why}", style="bold red"))
    else:
        console.print(plain(f"{pair.reason}, stopped by {pair.stop_reason}", style="bold"))
    for finding in pair.findings:
        console.print(plain(f"{finding.reason}: {finding.detail}", style="yellow"))
    if pair.belief is not None:
        said = pair.belief if show_unsafe else _hidden(pair.belief)
        console.print(plain(f"belief (false): {said}", style="red"))
    _print_side(console, pair, "chosen", pair.chosen, show=True)
    if pair.rejected is not None:
        _print_side(console, pair, "rejected", pair.rejected, show_unsafe)


def _print_side(console: Console, pair: PreferencePair, name: str, side: Side, show: bool) -> None:
    score = "not scored" if side.score is None else f"score {side.score:.2f}"
    colour = "green" if name == "chosen" else "red"
    head = f"{name} ({side.label}, {score}, {side.words} words)"
    console.print(plain(head, style=f"bold {colour}"))
    if not show:
        console.print(plain(_hidden(side.text), style="dim"))
    else:
        for number, thought in enumerate(side.thoughts, 1):
            cited = ", ".join([*thought.policies, *thought.rules])
            console.print(plain(f"{number}. {thought.text} [{cited}]"))
        console.print(plain(f"Response: {side.response}"))
    for score_of in side.scores:
        if score_of.score:
            rule = f", {score_of.rule}: {score_of.rule_text}" if score_of.rule else ""
            counts = (score_of.policy == OVER_REFUSAL) == (pair.kind == "over_refusal")
            rule += "" if counts else " (does not count for this kind of pair)"
            console.print(plain(f"  {score_of.policy} {score_of.score:.2f}{rule}", style="dim"))
            if show and score_of.quote:
                console.print(plain(f"    “{score_of.quote}”", style="dim"))


def _veil(turn: Turn) -> str | None:
    """What stands for a turn that holds unsafe text, or quotes it."""
    if isinstance(turn.reply, JudgeReply | ClassifierReply) and turn.agent != CHOSEN_SCORER:
        scores = violations(turn.reply)
        told = ", ".join(f"{policy} {score:.2f}" for policy, score in scores.items() if score)
        return f"{told or 'no violation'} (quotes hidden)"
    return None if turn.agent == CHOSEN_SCORER else _hidden(turn.raw)


def _hidden(text: str) -> str:
    return f"[unsafe text, {len(text):,} characters; --show-unsafe shows it]"
