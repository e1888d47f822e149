"""The front door: what group-chat scripts and notebooks need, in a handful of functions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from pathlib import Path
from typing import Any

from agents.models.components import ALLOWED_PROVIDERS
from agents.models.config import Price
from agents.prompt_texts import find_prompts
from orchestration.chat import DeliberationChat as DeliberationChat
from orchestration.chat.cast import Personas
from orchestration.chat.models import Models, ModelSpec, is_embedded, make_models
from orchestration.deliberation.diff import diff as diff
from orchestration.deliberation.job import RECORDS, DeliberationJob
from orchestration.deliberation.recipe import Cast, MakeTermination, Recipe, load_recipe
from orchestration.deliberation.record import CoTRecord
from orchestration.kinds import kind_of
from orchestration.pairs.exemplars import load_seeds
from orchestration.pairs.job import PAIRS, PairJob
from orchestration.pairs.pair import PreferencePair
from orchestration.pairs.places import check_records, pairs_folder
from orchestration.pairs.recipe import PairCast, PairRecipe, load_pair_recipe
from orchestration.pairs.serialize import pair_of
from orchestration.prompts.reader import Prompt, PromptReader, as_prompt
from orchestration.runs.budget import Limits
from orchestration.runs.folder import models_of_run, open_journal, policies_of_run
from orchestration.runs.intake import Intake, Source
from orchestration.runs.job import Kind, ResultT
from orchestration.runs.reader import RunReader
from orchestration.runs.result import ChatEnd
from orchestration.runs.run import Run, requeue
from orchestration.runs.trust import check_trusted, trust
from policies import InputError, PolicySet, load_policy_set


def load_cast(
    policies: str | Path | PolicySet = "aidsafe",
    recipe: str | Path | Recipe | None = None,
    personas: Personas | None = None,
    *,
    model: ModelSpec | None = None,
    models: Models | None = None,
    seed: int | None = None,
    price: Price | None = None,
    timeout: float | None = None,
    prompts: str | Path | None = None,
    termination: MakeTermination | None = None,
    allowed: Sequence[str] = ALLOWED_PROVIDERS,
) -> Cast:
    """Who deliberates over what, on which model. If no model is named, it is the embedded one.

    Args:
        policies: A policy set: a shipped name, a YAML file or an object.
        recipe: A recipe, likewise; by default `default`, or `small` on the embedded model.
        personas: Personas of your own, which hide shipped ones of the same name: a folder of YAML
            files, or objects.
        model: The model: `http://localhost:8000/v1#Qwen/Qwen3-32B`, or `gpt-4.1` (at
            OPENAI_BASE_URL or else OpenAI; the key is read from OPENAI_API_KEY), or an object.
        models: Several models instead: a YAML file with a `models:` block, or a mapping.
        seed: Seed of the models.
        price: Price of the models' tokens, for limits on cost.
        timeout: Seconds after which an attempt at an endpoint is abandoned; learned if left out.
        prompts: Prompt texts instead of the recipe's: a shipped name or a YAML file.
        termination: Makes the termination condition of each chat from the recipe, for example
            `lambda recipe: recipe.termination() | TimeoutTermination(60)`.
        allowed: Module prefixes that a model component may be loaded from (runs its code).

    Returns:
        The cast. Close it with `await cast.close()`, or use it in `async with`.

    Raises:
        InputError: Something is unknown, missing, or given twice.
        YamlError: A YAML file has problems.
    """
    made = make_models(model, models, seed=seed, price=price, timeout=timeout, allowed=allowed)
    trust(each.config for each in made.values())
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(str(recipe or ("small" if is_embedded(made) else "default")))
    if not isinstance(policies, PolicySet):
        policies = load_policy_set(policies)
    texts = None if prompts is None else find_prompts(str(prompts))
    return Cast(recipe, policies, made, _objects(personas), texts, termination)


async def deliberate(prompt: str | Prompt, cast: Cast) -> CoTRecord:
    """Deliberates over one prompt. The models stay open for the next call.

    The record's outcome is not `completed` if a turn gave no usable reply.

    Raises:
        EndpointError: A model gave no reply, after retries.
    """
    prompt = as_prompt(prompt)
    chat = cast.make_chat()
    await chat.run(task=prompt.text)
    return cast.record(chat, prompt)


async def deliberate_all(
    prompts: str | Path | Iterable[str | Prompt],
    cast: Cast,
    folder: str | Path,
    *,
    concurrency: int | None = None,
    limits: Limits | None = None,
    retry: Collection[str] = (),
    locking: bool = True,
) -> AsyncGenerator[CoTRecord, None]:
    """Deliberates over many prompts as a run, in which no reply is lost or paid for twice.

    Called again with the same folder, it continues. If the loop over it is left, the calls under
    way are finished and stored (`contextlib.aclosing` waits for that).

    Args:
        prompts: Texts or prompts; or a source that `aidsafe run` takes, such as a JSONL file.
        cast: Who deliberates.
        folder: The run folder; created if it is new.
        concurrency: Chats at the same time; `cast.default_concurrency` if left out.
        limits: What may be spent, as `orchestration.runs.budget.Limits`; once a limit is reached,
            the loop ends.
        retry: Outcomes, such as `failed`, whose prompts are taken up again.
        locking: Whether to refuse a file system without locks, where another process could pay
            for the same replies.

    Yields:
        Every record of the folder: first those of earlier sessions, then each new one once it is on
        disk. A text that is given twice has one record.

    Raises:
        AidsafeError: What stopped the run; see `Run.execute`.
    """
    opened: AbstractContextManager[Iterator[Prompt]]
    if isinstance(prompts, str | Path):
        source, opened = Source(str(prompts)), PromptReader(str(prompts))
    else:
        source, opened = Source("(given in Python)"), nullcontext(map(as_prompt, prompts))
    with opened as given:
        run = Run(Path(folder), DeliberationJob(cast), source, locking=locking)
        records = _execute(run, RECORDS, given, concurrency, limits, retry)
        async with aclosing(records):
            async for record in records:
                yield record


def load_pair_cast(
    source: Cast | str | Path,
    recipe: str | Path | PairRecipe | None = None,
    personas: Personas | None = None,
    *,
    baseline: bool = False,
    model: ModelSpec | None = None,
    models: Models | None = None,
    seed: int | None = None,
    price: Price | None = None,
    timeout: float | None = None,
    allowed: Sequence[str] = ALLOWED_PROVIDERS,
) -> PairCast:
    """Who makes preference pairs.

    Args:
        source: A cast or a run folder, for its policies; and for its models, if none are named.
            A folder's models are sent a key only where you have sent it before.
        recipe: A pair recipe: a shipped name, a YAML file or an object; by default `default`, or
            `small` on the embedded model.
        personas: See `load_cast`; so are the arguments below.
        baseline: Whether rejected sides are made by sampling alone.
    """
    named = model is not None or models is not None
    if isinstance(source, Cast):
        policy_set, models = source.policy_set, models if named else source.models
    else:
        folder = Path(source)
        policy_set = policies_of_run(folder)
        if not named:
            models = configs = models_of_run(folder)
            check_trusted(configs)
    made = make_models(model, models, seed=seed, price=price, timeout=timeout, allowed=allowed)
    if named:
        trust(each.config for each in made.values())
    if not isinstance(recipe, PairRecipe):
        recipe = load_pair_recipe(str(recipe or ("small" if is_embedded(made) else "default")))
    seeds = load_seeds(recipe.seeds)
    return PairCast(recipe, policy_set, made, seeds, _objects(personas), baseline)


async def make_pair(record: CoTRecord, cast: Cast | PairCast) -> PreferencePair:
    """Makes a preference pair of one completed record.

    The rejected side is made bad on purpose, and labelled so: do not train on it as a target. The
    ear-whisperer is shown the seeds; it learns only in runs.

    Args:
        record: A completed record, whose response is the chosen side.
        cast: Its cast, for the default pair recipe; or a pair cast.

    Raises:
        EndpointError: A model gave no reply, after retries.
    """
    if record.outcome != "completed":
        raise InputError(
            f"The record {record.id} is {record.outcome}, and a pair needs a completed one.",
            "Deliberate over its prompt again.",
        )
    pair_cast = cast if isinstance(cast, PairCast) else load_pair_cast(cast)
    brief = pair_cast.brief(record)
    if brief.target and not pair_cast.baseline:
        brief.exemplars = list(pair_cast.seeds.of(brief.target, pair_cast.recipe.exemplars))
    chat = pair_cast.make_chat()
    if brief.target:  # otherwise it is off limits, and the pair says so
        await chat.run(task=brief.task(record.prompt))
    return pair_of(pair_cast, record, brief, ChatEnd.of(chat))


async def make_pairs(
    folder: str | Path,
    cast: PairCast | None = None,
    *,
    baseline: bool = False,
    limit: int | None = None,
    concurrency: int | None = None,
    limits: Limits | None = None,
    retry: Collection[str] = (),
    locking: bool = True,
) -> AsyncGenerator[PreferencePair, None]:
    """Makes a preference pair of every completed record of a run, as `aidsafe prefer` does.

    The pairs become a run of their own, in `pairs` (or `baseline`) inside the folder.

    Args:
        folder: The run of the records.
        cast: Who makes them; `load_pair_cast(folder)` if left out.
        baseline: Whether rejected sides are made by sampling alone, where no cast is given.
        limit: How many records are taken at most.
        concurrency: See `deliberate_all`; so are the further arguments, and the errors.

    Yields:
        Every pair of the pairs' folder, first those of earlier sessions.
    """
    path = Path(folder)
    check_records(path)
    own = nullcontext(cast) if cast else load_pair_cast(path, baseline=baseline)
    async with own as made:
        job = PairJob(made, path)
        run = Run(pairs_folder(path, made.baseline), job, job.source(limit), locking=locking)
        pairs = _execute(run, PAIRS, job.prompts(), concurrency, limits, retry)
        async with aclosing(pairs):
            async for pair in pairs:
                yield pair


def open_run(folder: str | Path) -> RunReader[Any]:
    """Opens a run folder to read its results: an iterable of records, or of pairs.

    `to_pandas()` and `to_dataset()` have a row for each. Columns of records: id, prompt,
    outcome, problem, stop_reason, rounds, response, latency (seconds), intents, thoughts
    (texts), cited (ids of policies and rules), removed (number of thoughts), prompt_tokens,
    completion_tokens, cached_tokens, estimated_tokens, policy_set, recipe, metadata (JSON).
    Columns of pairs: id, prompt, outcome, kind, target, violated, rejected_by, margin,
    attempts, first_score, generation, kept, reason, chosen (response), chosen_score,
    chosen_words, rejected_label, rejected_score, rejected_words, policy_set, recipe; with
    `unsafe=True` also unsafe_rejected (response) and unsafe_belief.

    Raises:
        JournalError: There is no run, or its journal is damaged.
    """
    journal = open_journal(Path(folder))
    try:
        return RunReader(journal, kind_of(journal))
    except BaseException:
        journal.close()
        raise


def _objects(personas: Personas | None) -> Personas | None:
    """Personas that shipped ones are added to; a cast takes a mapping for all that there are."""
    return list(personas.values()) if isinstance(personas, Mapping) else personas


async def _execute(
    run: Run,
    kind: Kind[ResultT],
    prompts: Iterator[Prompt],
    concurrency: int | None,
    limits: Limits | None,
    retry: Collection[str],
) -> AsyncGenerator[ResultT, None]:
    """A session of a run, as the results of its folder; closes the run."""
    results = RunReader(run.journal, kind)
    # Ids alone: if the consumer is slower than the run, results must not fill the memory.
    finished: asyncio.Queue[str | None] = asyncio.Queue()

    async def choose_all(_: Intake) -> None:
        for prompt, outcome in run.journal.prompts():
            if outcome is not None:
                finished.put_nowait(prompt.id)

    async def execute() -> None:
        try:
            await requeue(run.journal, retry)
            await run.execute(
                prompts,
                concurrency or run.job.cast.default_concurrency,
                limits=limits,
                choose=choose_all,
                on_result=lambda result: finished.put_nowait(result.id),
            )
        finally:
            finished.put_nowait(None)

    session = asyncio.create_task(execute())
    try:
        while (prompt_id := await finished.get()) is not None:
            for result in results.find(prompt_id, 1):
                yield result
        await session
    finally:
        run.stop()
        try:
            with suppress(Exception):  # what is not raised above came after the loop was left
                await session
        finally:
            run.close()
