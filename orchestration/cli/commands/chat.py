"""`aidsafe chat`: one prompt, shown while the agents speak."""

from __future__ import annotations

import sys
from contextlib import aclosing

import typer

from agents.models.errors import EndpointError
from agents.turns import TurnMessage
from orchestration.chat.view import TurnTexts, plain
from orchestration.cli.console import out, run_async, write
from orchestration.cli.exit_codes import ExitCode
from orchestration.cli.options import CastOptions, argument, command
from orchestration.cli.session import announce
from orchestration.deliberation.job import RECORDS
from orchestration.deliberation.recipe import Cast
from orchestration.deliberation.record import CoTRecord
from orchestration.prompts.reader import as_prompt
from orchestration.runs.result import Interruption
from policies import InputError


@command
def chat(
    options: CastOptions,
    prompt: str = argument("The prompt; - reads it from standard input.", "PROMPT"),
) -> None:
    """Let the agents deliberate over one prompt, and watch them.

    Example: aidsafe chat "How do I kill a Python process?" --policies my_policies.yaml
    """
    text = as_prompt(_read_stdin() if prompt == "-" else prompt).text
    cast = options.cast()
    announce(cast, options.personas)
    record, error = run_async(lambda: _stream(cast, text, quiet=options.json))
    if options.json:
        write(record.model_dump_json(indent=2) + "\n")
    else:
        RECORDS.show_end(out(), record)
    if error is not None:
        raise error
    if record.outcome != "completed":
        raise typer.Exit(ExitCode.NOT_COMPLETED)


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("The prompt is not UTF-8 text.", "Give it as UTF-8.") from None


async def _stream(cast: Cast, text: str, quiet: bool) -> tuple[CoTRecord, EndpointError | None]:
    """The chat's record; with the endpoint's error if that interrupted the chat."""
    console = out()
    texts = TurnTexts()
    team = cast.make_chat()
    failure: EndpointError | None = None
    if not quiet:
        console.print(plain(f"prompt  {text}\n", "bold"))
    try:
        async with aclosing(team.run_stream(task=text)) as stream:
            async for item in stream:
                if isinstance(item, TurnMessage) and not quiet:
                    texts.print(console, [item.content])
    except EndpointError as error:
        if len(team.messages) <= 1:
            raise  # there is no turn to show
        failure = error
    finally:
        await cast.close()
    interruption: Interruption | None = ("failed", failure.cause) if failure else None
    return cast.record(team, interruption=interruption), failure
