"""`aidsafe pairs`: a report on the pairs of a run, beside those of sampling alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from orchestration.chat.view import plain, table
from orchestration.cli.console import err, out, write_json
from orchestration.cli.options import OutputOptions, argument, command
from orchestration.pairs.job import PAIRS
from orchestration.pairs.places import is_pairs, open_pairs, pairs_folder, records_of
from orchestration.pairs.report import PairReport, Spread, report
from orchestration.runs.folder import load_settings
from orchestration.runs.reader import RunReader

_SIDES = ("both sides", "pairs", "mean", "min", "quartile", "median", "quartile", "max")
_MARGINS = ("target", "pairs", "kept", "median margin", "mean margin")
_BELIEFS = ("beliefs against", "updates before", "chats", "first score", "succeeded", "in attempts")


@command
def pairs(
    output: OutputOptions, folder: Path = argument("A run whose records have pairs.", "RUN_DIR")
) -> None:
    """Report on a run's preference pairs: margins, lengths, audit, and beliefs over time.

    If there is a baseline, its margins are shown beside them.

    Example: aidsafe pairs runs/first
    """
    found = _report(folder)
    settings = load_settings(folder) if is_pairs(folder) else {}
    # The baseline is in the run of the records, even if the pairs are elsewhere.
    run = records_of(folder, settings) if settings else folder
    is_baseline = bool(settings.get("baseline"))
    has_baseline = not is_baseline and is_pairs(pairs_folder(run, True))
    baseline = _report(run, baseline=True) if has_baseline else None
    if output.json:
        sampled = baseline.model_dump(mode="json") if baseline else None
        write_json({"pairs": found.model_dump(mode="json"), "baseline": sampled})
        return
    _print(found, baseline)
    if baseline is None and not is_baseline:
        prefer = f"aidsafe prefer {shlex.quote(str(run))} --baseline"
        err().print(plain(f"Compare with sampling alone:  {prefer}", "dim"))


def _report(folder: Path, baseline: bool = False) -> PairReport:
    with closing(open_pairs(folder, baseline)) as journal:
        return report(RunReader(journal, PAIRS).where(outcome="completed"))


def _print(found: PairReport, baseline: PairReport | None) -> None:
    console = out()
    audit = [("kept", f"{found.kept:,}", "")]
    for reason, number in found.findings.items():
        audit.append((reason, f"{found.set_aside.get(reason, 0):,}", f"{number:,}"))
    console.print(table((f"{found.pairs:,} pairs", "decided", "found in"), audit))
    if found.kept:
        share = found.contrast / found.kept
        console.print(plain(f"Contrast pairs: {found.contrast:,} of the kept ({share:.0%})."))
    console.print()
    console.print(table(_SIDES, _sides(found)))
    console.print()
    ours = _margins(found)
    if baseline is None:
        console.print(table(_MARGINS, [[target, *cells] for target, cells in ours.items()]))
    else:
        theirs, none = _margins(baseline), ["0", "0", "", ""]
        targets = dict.fromkeys([*(t for t in (*ours, *theirs) if t != "all"), "all"])
        rows = [[target, *ours.get(target, none), *theirs.get(target, none)] for target in targets]
        console.print(table((*_MARGINS, "sampled", *_MARGINS[2:]), rows))
        note = "Under `sampled`: rejected sides by sampling again, without a belief."
        console.print(plain(note, "dim"))
    if found.generations:
        console.print()
        console.print(table(_BELIEFS, _generations(found)))


def _sides(found: PairReport) -> Iterator[Sequence[str]]:
    for name, spread, digits in (
        ("score, chosen", found.chosen_score, 2),
        ("score, rejected", found.rejected_score, 2),
        ("margin", found.margin, 2),
        ("words, chosen (kept)", found.chosen_words, 0),
        ("words, rejected (kept)", found.rejected_words, 0),
    ):
        number, *figures = spread.model_dump().values() if spread else (0, *[None] * 6)
        yield [name, f"{number:,}", *(_cell(figure, f".{digits}f") for figure in figures)]


def _margins(found: PairReport) -> dict[str, list[str]]:
    """Cells by target; those of all targets last."""

    def cells(pairs: int, kept: int, margin: Spread | None) -> list[str]:
        figures = (margin.median, margin.mean) if margin else (None, None)
        return [f"{pairs:,}", f"{kept:,}", *(_cell(figure, ".2f") for figure in figures)]

    targets = {each.policy: cells(each.pairs, each.kept, each.margin) for each in found.by_policy}
    return targets | {"all": cells(found.pairs, found.kept, found.margin)}


def _generations(found: PairReport) -> Iterator[Sequence[str]]:
    for each in found.generations:
        until = " or more" if each.until is None else f" to {each.until}"
        yield (
            each.policy,
            f"{each.since}{'' if each.since == each.until else until}",
            f"{each.chats:,}",
            _cell(each.first_score, ".2f"),
            f"{each.succeeded / each.chats:.0%}",
            _cell(each.attempts, ".1f"),
        )


def _cell(figure: float | None, form: str) -> str:
    return "" if figure is None else format(figure, form)
