"""`aidsafe pairs`: what came of the pairs of a run, beside those of sampling alone."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestration.commands import options
from orchestration.commands.output import err, out, write_json
from orchestration.pairs.pair import PreferencePair
from orchestration.pairs.places import is_pairs, open_pairs, pairs_folder
from orchestration.pairs.report import Margins, PairReport, Spread, report
from orchestration.runs.folder import load_settings
from orchestration.runs.rebuild import records_of
from orchestration.view import plain, table


def pairs(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="A run whose records have pairs.")
    ],
    json: options.Json = False,
) -> None:
    """Report on a run's preference pairs: margins, lengths, what was set aside, beliefs over time.

    Where there is a baseline, its margins stand beside them.

    Example: aidsafe pairs runs/first
    """
    found = _report(folder)
    settings = load_settings(folder) if is_pairs(folder) else {}
    # Of pairs that were made somewhere else, the baseline is where that of the run is.
    run = records_of(folder, settings) if settings else folder
    same = bool(settings.get("baseline"))
    sampled = (
        _report(run, baseline=True) if not same and is_pairs(pairs_folder(run, True)) else None
    )
    if json:
        write_json(
            {
                "pairs": found.model_dump(mode="json"),
                "baseline": sampled.model_dump(mode="json") if sampled else None,
            }
        )
        return
    console = out()
    _print_dispositions(console, found)
    _print_sides(console, found)
    _print_margins(console, found, sampled)
    _print_generations(console, found)
    if sampled is None and not same:
        command = f"aidsafe prefer {shlex.quote(str(run))} --baseline"
        err().print(plain(f"Compare with sampling alone:  {command}", style="dim"))


def _report(folder: Path, baseline: bool = False) -> PairReport:
    journal = open_pairs(folder, baseline)
    try:
        return report(journal.records_of(PreferencePair, "completed"))
    finally:
        journal.close()


def _print_dispositions(console: Console, found: PairReport) -> None:
    rows = [("kept", f"{found.kept:,}", "")]
    for reason, number in found.findings.items():
        rows.append((reason, f"{found.set_aside.get(reason, 0):,}", f"{number:,}"))
    console.print(table((f"{found.pairs:,} pairs", "ended so", "found in"), rows))
    if found.kept:
        share = found.contrast / found.kept
        console.print(plain(f"Contrast pairs: {found.contrast:,} of the kept ({share:.0%})."))


def _print_sides(console: Console, found: PairReport) -> None:
    rows = [
        _spread("score, chosen", found.chosen_score, 2),
        _spread("score, rejected", found.rejected_score, 2),
        _spread("margin", found.margin, 2),
        _spread("words, chosen (kept)", found.chosen_words, 0),
        _spread("words, rejected (kept)", found.rejected_words, 0),
    ]
    console.print()
    head = ("both sides", "pairs", "mean", "least", "quarter", "median", "3 quarters", "greatest")
    console.print(table(head, rows))


def _spread(name: str, found: Spread | None, digits: int) -> tuple[str, ...]:
    if found is None:
        return (name, "0", *[""] * 6)
    figures = (
        found.mean,
        found.low,
        found.quarter,
        found.median,
        found.three_quarters,
        found.high,
    )
    return (name, f"{found.pairs:,}", *(f"{figure:.{digits}f}" for figure in figures))


def _print_margins(console: Console, found: PairReport, sampled: PairReport | None) -> None:
    """Margins by target; the baseline's beside them."""
    beside = {each.policy: each for each in sampled.by_policy} if sampled else {}
    head = ["target", "pairs", "kept", "median margin", "mean margin"]
    if sampled is not None:
        head += ["sampled", "kept", "median margin", "mean margin"]
    rows = []
    totals = _total(found), _total(sampled) if sampled else None
    here = {each.policy for each in found.by_policy}
    none = [
        Margins(policy=name, pairs=0, kept=0, scored=0, margin=None)
        for name in beside
        if name not in here
    ]
    for each in [*found.by_policy, *none, totals[0]]:
        other = beside.get(each.policy) if each.policy != "all" else totals[1]
        cells = [each.policy, *_margin(each)]
        rows.append(cells + (_margin(other) if sampled is not None else []))
    console.print()
    console.print(table(head, rows))
    if sampled is not None:
        console.print(
            plain("Under `sampled`: rejected sides by sampling again, without a belief.", "dim")
        )


def _total(found: PairReport) -> Margins:
    scored = sum(each.scored for each in found.by_policy)
    return Margins(
        policy="all", pairs=found.pairs, kept=found.kept, scored=scored, margin=found.margin
    )


def _margin(found: Margins | None) -> list[str]:
    if found is None:
        return ["0", "0", "", ""]
    figures = (found.margin.median, found.margin.mean) if found.margin else ()
    return [f"{found.pairs:,}", f"{found.kept:,}", *(f"{f:.2f}" for f in figures)] + [""] * (
        2 - len(figures)
    )


def _print_generations(console: Console, found: PairReport) -> None:
    rows = []
    for each in found.generations:
        until = "on" if each.until is None else f"to {each.until}"
        rows.append(
            (
                each.policy,
                str(each.since) if each.since == each.until else f"{each.since} {until}",
                f"{each.chats:,}",
                "" if each.first_score is None else f"{each.first_score:.2f}",
                f"{each.succeeded / each.chats:.0%}",
                "" if each.attempts is None else f"{each.attempts:.1f}",
            )
        )
    if rows:
        head = (
            "beliefs against",
            "updates before",
            "chats",
            "first score",
            "succeeded",
            "in attempts",
        )
        console.print()
        console.print(table(head, rows))
