"""Options of commands: how they are declared, and those that several commands share.

A command is a function of a dataclass that has a field for each of its arguments and options.
Commands share options by inheriting them:

    @dataclass(frozen=True, kw_only=True)
    class ShowOptions(OutputOptions):
        folder: Path = argument("A run folder.", "FOLDER")
        limit: int | None = option("Maximum number to list.", "N", min=1)

    @command
    def show(options: ShowOptions) -> None:

`command` gives the function the signature that Typer reads: a parameter for each field.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import typer

from agents.models.components import ALLOWED_PROVIDERS
from agents.models.config import Price
from orchestration.api import load_cast
from orchestration.chat.models import endpoint_model
from orchestration.deliberation.recipe import Cast
from orchestration.prompts.reader import PromptReader, read_prompts
from orchestration.runs.budget import Limits
from orchestration.runs.intake import Source
from policies import InputError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def option(
    help: str,
    metavar: str | None = None,
    *names: str,
    default: Any = None,
    choices: Sequence[str] = (),
    **settings: Any,
) -> Any:
    """A field that is an option.

    Args:
        help: Its help text.
        metavar: Its value in the help; None for flags and choices.
        names: Its names; made from the field's name if left out.
        default: Its value if it is not given; `MISSING` if it must be.
        choices: Its possible values, if these are known.
        settings: Further arguments of `typer.Option`.
    """
    metavar = f"[{'|'.join(choices)}]" if choices else metavar
    shown = default not in (None, False, MISSING)
    settings |= {"help": help, "metavar": metavar, "show_default": shown, **_checked(choices)}
    return field(default=default, metadata={"names": names, "settings": settings})


def argument(help: str, metavar: str, default: Any = MISSING, choices: Sequence[str] = ()) -> Any:
    """A field that is a positional argument; see `option`."""
    settings = {"help": help, "metavar": metavar, "show_default": False, **_checked(choices)}
    return field(default=default, metadata={"settings": settings})


def _checked(choices: Sequence[str]) -> dict[str, Any]:
    def check(value: Any) -> Any:
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is not None and each not in choices:
                raise typer.BadParameter(f"'{each}' is not one of {', '.join(choices)}.")
        return value

    return {"callback": check} if choices else {}


def command(function: Callable[[Any], None], without: Collection[str] = ()) -> Callable[..., None]:
    """Gives a function of an options object the signature that Typer reads.

    Args:
        function: The command.
        without: Fields that are no options of this command, and keep their defaults.
    """
    (options_class,) = (h for name, h in get_type_hints(function).items() if name != "return")
    by_name, hints = {f.name: f for f in fields(options_class)}, get_type_hints(options_class)
    # A class's own options come first in the help, those that it shares after them.
    order = (name for base in options_class.__mro__ for name in inspect.get_annotations(base))
    names = [name for name in dict.fromkeys(order) if name not in without]

    @functools.wraps(function)
    def run(**values: Any) -> None:
        function(options_class(**values))

    parameters = [_parameter(by_name[name], hints[name]) for name in names]
    required_first = sorted(parameters, key=lambda p: p.default.default is not ...)
    run.__signature__ = inspect.Signature(required_first)  # type: ignore[attr-defined]
    return run


def _parameter(of: Field[Any], annotation: Any) -> inspect.Parameter:
    default = ... if of.default is MISSING else of.default
    if "names" in of.metadata:
        names = of.metadata["names"] or (f"--{of.name.replace('_', '-')}",)
        made = typer.Option(default, *names, **of.metadata["settings"])
    else:
        made = typer.Argument(default, **of.metadata["settings"])
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(of.name, kind, default=made, annotation=annotation)


# Options that several commands share --------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """How results are printed."""

    json: bool = option("Print JSON for a program.", default=False)


@dataclass(frozen=True, kw_only=True)
class ProviderOptions(OutputOptions):
    """What may be loaded."""

    allow_provider: list[str] | None = option(
        "Python module that model components may be loaded from (runs its code).", "MODULE"
    )

    @property
    def allowed(self) -> list[str]:
        """Module prefixes that a model component's classes may come from."""
        return [*ALLOWED_PROVIDERS, *(self.allow_provider or [])]


@dataclass(frozen=True, kw_only=True)
class ModelOptions(ProviderOptions):
    """Which models are used."""

    models: Path | None = option(
        "YAML file with a models: block. [default: the embedded model]", "FILE"
    )
    base_url: str | None = option(
        "Endpoint that speaks the OpenAI protocol; the key is read from OPENAI_API_KEY. "
        "[default: OPENAI_BASE_URL, or OpenAI itself, if --model is given]",
        "URL",
    )
    model: str | None = option("Model at that endpoint.", "NAME")
    seed: int | None = option("Seed for every model. [default: 0, or that of --models]", "N")

    def model_arguments(self, price: str | None = None) -> dict[str, Any]:
        """The arguments for models of `load_cast` and `load_pair_cast`.

        Raises:
            InputError: Options contradict each other, or one is invalid.
        """
        if self.models is not None and (self.base_url or self.model):
            raise InputError(
                "--models and --base-url or --model contradict each other.",
                "Give one or the other.",
            )
        if self.base_url is not None and self.model is None:
            raise InputError("--base-url needs the name of a model.", "Add --model NAME.")
        named = None if self.model is None else endpoint_model(self.model, self.base_url)
        return {
            "model": named,
            "models": self.models,
            "seed": self.seed,
            "price": parse_price(price, self.models),
            "allowed": self.allowed,
        }


@dataclass(frozen=True, kw_only=True)
class CastOptions(ModelOptions):
    """Who deliberates over which policies."""

    policies: str = option(
        "Policy set: a shipped name or a YAML file.", "NAME|FILE", default="aidsafe"
    )
    recipe: str | None = option(
        "Who takes part and for how long: a shipped name or a YAML file. "
        "[default: default; small on the embedded model]",
        "NAME|FILE",
    )
    personas: Path | None = option("Folder with your own persona YAMLs.", "FOLDER")

    def cast(self, price: str | None = None) -> Cast:
        """Reads all that the options name; `price` is that of `--price`."""
        models = self.model_arguments(price)
        return load_cast(self.policies, self.recipe, self.personas, **models)


@dataclass(frozen=True, kw_only=True)
class SessionOptions(OutputOptions):
    """How a session of a run works."""

    concurrency: int | None = option(
        "Maximum number of chats at the same time. [default: 16; the number of slots on the "
        "embedded model]",
        "N",
        min=1,
    )
    price: str | None = option(
        "Price of a million tokens of the prompt, of the reply and of the cached prompt.",
        "IN,OUT[,CACHED]",
    )
    max_cost: float | None = option(
        "Stop when all sessions of the run have cost this much.", "AMOUNT", min=0.0
    )
    max_tokens: int | None = option(
        "Stop when all sessions of the run have used this many tokens, in and out.", "N", min=1
    )
    max_time: str | None = option("Stop this session after a time, such as 90m, 8h or 2d.", "TIME")
    otel: bool = option(
        "Send OpenTelemetry spans and metrics, without prompts and replies.", default=False
    )

    def limits(self) -> Limits:
        """What the session may spend."""
        if self.max_time is None:
            return Limits(self.max_cost, self.max_tokens, None)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", self.max_time.strip())
        if not found or float(found[1]) <= 0:
            raise InputError(f"--max-time {self.max_time} is invalid.", "Write 90m, 8h or 2d.")
        return Limits(self.max_cost, self.max_tokens, float(found[1]) * _SECONDS[found[2] or "s"])


@dataclass(frozen=True, kw_only=True)
class PromptsOptions(SessionOptions, CastOptions):
    """Which prompts are deliberated over, by whom, and how."""

    prompts: str = argument(
        "JSONL, CSV, TSV, Parquet or text file; hf:owner/name (Hugging Face); - (standard input).",
        "PROMPTS",
    )
    out: Path = option("Run folder; created if it does not exist.", "FOLDER", default=MISSING)
    column: str | None = option(
        "Column of the prompts. [default: prompt, or the only column]", "NAME"
    )
    id_column: str | None = option("Column of the ids. [default: made from the text]", "NAME")
    limit: int | None = option("Maximum number of prompts.", "N", min=1)

    @property
    def source(self) -> Source:
        """Where the prompts come from."""
        return Source(self.prompts, self.column, self.id_column, self.limit)

    def read(self) -> PromptReader:
        """Opens the prompts."""
        return read_prompts(self.prompts, column=self.column, id_column=self.id_column)


def parse_price(text: str | None, file: Path | None) -> Price | None:
    """The price that `--price` gives, which contradicts a `--models` file."""
    if text is None:
        return None
    if file is not None:
        raise InputError(
            "--price and --models contradict each other.",
            "Put a price: block into the models file.",
        )
    try:
        prompt, completion, *cached = (float(part) for part in text.split(","))
        if len(cached) > 1:
            raise ValueError
        return Price(prompt=prompt, completion=completion, cached=cached[0] if cached else None)
    except ValueError:
        raise InputError(
            f"--price {text} is invalid.",
            "Write what a million tokens cost: of the prompt, of the reply and, optionally, of "
            "the cached prompt, such as 2.5,10,1.25.",
        ) from None
