"""Options of commands: how they are declared, and those that several commands share.

A command is a function with a parameter for each of its arguments and options. Commands share
options as groups, which are dataclasses:

    @command
    def show(
        output: OutputOptions,
        folder: Path = argument("A run folder.", "FOLDER"),
        limit: int | None = option("Maximum number to list.", "N", min=1),
    ) -> None:

`command` gives the function the signature that Typer reads: a parameter for each of its own, and
for each field of its groups. One that has the name of a group's field replaces that in the help,
and the group has its value too.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import typer
from typer.models import OptionInfo

from agents.models.components import ALLOWED_PROVIDERS
from agents.models.config import Price
from orchestration.api import load_cast
from orchestration.chat.models import endpoint_model
from orchestration.deliberation.recipe import Cast
from orchestration.prompts.reader import PromptReader
from orchestration.runs.budget import Limits
from orchestration.runs.intake import Source
from policies import InputError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


REQUIRED: Any = ...
"""The default of an option that must be given."""


def option(
    help: str,
    metavar: str | None = None,
    *names: str,
    default: Any = None,
    choices: Sequence[str] = (),
    **settings: Any,
) -> Any:
    """An option, as the default of a parameter or field.

    Args:
        help: Its help text.
        metavar: Its value in the help; None for flags and choices.
        names: Its names; made from the parameter's name if left out.
        default: Its value if it is not given; `REQUIRED` if it must be.
        choices: Its possible values, if these are known.
        settings: Further arguments of `typer.Option`.
    """
    metavar = f"[{'|'.join(choices)}]" if choices else metavar
    shown = default not in (None, False, REQUIRED)
    settings |= {"help": help, "metavar": metavar, "show_default": shown, **_checked(choices)}
    return typer.Option(default, *names, **settings)


def argument(help: str, metavar: str, default: Any = REQUIRED, choices: Sequence[str] = ()) -> Any:
    """A positional argument; see `option`."""
    settings = {"help": help, "metavar": metavar, "show_default": False, **_checked(choices)}
    return typer.Argument(default, **settings)


def _checked(choices: Sequence[str]) -> dict[str, Any]:
    def check(value: Any) -> Any:
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is not None and each not in choices:
                raise typer.BadParameter(f"'{each}' is not one of {', '.join(choices)}.")
        return value

    return {"callback": check} if choices else {}


def command(function: Callable[..., None], without: Collection[str] = ()) -> Callable[..., None]:
    """Gives a function the signature that Typer reads.

    Args:
        function: The command.
        without: Fields of groups that are no options of this command, and have their defaults.
    """
    hints = {name: hint for name, hint in get_type_hints(function).items() if name != "return"}
    groups = {name: hints[name] for name in hints if is_dataclass(hints[name])}
    signature = inspect.signature(function).parameters
    found = {n: (signature[n].default, hint) for n, hint in hints.items() if n not in groups}
    for group in groups.values():
        of_group = get_type_hints(group)
        # A group's own options come first in the help, those that it inherits after them.
        names = (name for base in group.__mro__ for name in inspect.get_annotations(base))
        for name in names:
            found.setdefault(name, (getattr(group, name), of_group[name]))

    @functools.wraps(function)
    def run(**values: Any) -> None:
        values = {name: info.default for name, (info, _) in found.items()} | values
        given = {name: values[name] for name in hints if name not in groups}
        for name, group in groups.items():
            given[name] = group(**{each.name: values[each.name] for each in fields(group)})
        function(**given)

    parameters = [_parameter(n, *each) for n, each in found.items() if n not in without]
    required_first = sorted(parameters, key=lambda p: p.default.default is not REQUIRED)
    run.__signature__ = inspect.Signature(required_first)  # type: ignore[attr-defined]
    return run


def _parameter(name: str, info: Any, hint: Any) -> inspect.Parameter:
    if isinstance(info, OptionInfo) and not info.param_decls:
        info.param_decls = (f"--{name.replace('_', '-')}",)  # of flags, Typer would make two names
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=hint)


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
    timeout: str | None = option(
        "Time after which an attempt at an endpoint is abandoned, such as 90s or 20m. [default: "
        "learned from the times of replies, up to 10m]",
        "TIME",
    )

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
            "timeout": parse_time("--timeout", self.timeout),
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
    estimate_tokens: bool = option(
        "Hold limits by estimates where an endpoint counts no tokens: one for four bytes.",
        default=False,
    )
    otel: bool = option(
        "Send OpenTelemetry spans and metrics, without prompts and replies.", default=False
    )

    no_lock: bool = option(
        "Write to the run even if its file system has no locks: nothing then keeps a second "
        "process from paying for the same replies.",
        default=False,
    )

    def limits(self) -> Limits:
        """What the session may spend."""
        seconds = parse_time("--max-time", self.max_time)
        return Limits(self.max_cost, self.max_tokens, seconds, self.estimate_tokens)


@dataclass(frozen=True, kw_only=True)
class PromptsOptions(SessionOptions, CastOptions):
    """Which prompts are deliberated over, by whom, and how."""

    prompts: str = argument(
        "JSONL, JSON, CSV, TSV, Parquet or text file (.gz, .zst); folder or 'pattern'; "
        "hf:owner/name (Hugging Face); - (standard input).",
        "PROMPTS",
    )
    out: Path = option("Run folder; created if it does not exist.", "FOLDER", default=REQUIRED)
    column: str | None = option(
        "Column of the prompts, such as text or item.text. [default: prompt, a chat, or the only "
        "column]",
        "NAME",
    )
    id_column: str | None = option("Column of the ids. [default: made from the text]", "NAME")
    limit: int | None = option("Maximum number of prompts.", "N", min=1)

    @property
    def source(self) -> Source:
        """Where the prompts come from."""
        return Source(self.prompts, self.column, self.id_column, self.limit)

    def read(self) -> PromptReader:
        """Opens the prompts."""
        return PromptReader(self.prompts, column=self.column, id_column=self.id_column)


def parse_time(name: str, text: str | None) -> float | None:
    """The seconds of an option such as 90s, 20m, 8h or 2d; None if it is not given."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not found or float(found[1]) <= 0:
        raise InputError(f"{name} {text} is invalid.", "Write 90s, 20m, 8h or 2d.")
    return float(found[1]) * _SECONDS[found[2] or "s"]


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
