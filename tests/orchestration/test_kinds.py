"""What is known of a run folder without naming its kind: what it makes, and who takes part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.models.components import ALLOWED_PROVIDERS
from agents.models.config import EndpointConfig, ModelConfig, Price
from agents.models.redaction import REDACTED
from agents.prompt_texts import find_prompts
from orchestration.deliberation.job import DeliberationJob
from orchestration.deliberation.recipe import Cast
from orchestration.journal import FILE_NAME, Journal
from orchestration.kinds import load_run
from orchestration.runs.folder import SETTINGS_NAME
from policies import InputError
from tests.orchestration.changes import changed
from tests.orchestration.run_helpers import cast_at, execute, prompts
from tests.scripted import cast

URL = "http://127.0.0.1:9/v1"


def save(folder: Path, made: Cast, **changes: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"kind": "records", "prompts": None, **DeliberationJob(made).settings(), **changes}
    (folder / SETTINGS_NAME).write_text(yaml.safe_dump(settings, allow_unicode=True))
    Journal(folder / FILE_NAME, write=True).close()


def rebuild(folder: Path, configs: dict[str, ModelConfig] | None = None) -> Cast:
    job = load_run(folder, configs, ALLOWED_PROVIDERS)
    assert isinstance(job, DeliberationJob)
    return job.cast


def test_the_cast_of_a_run_is_found_again_in_full(folder: Path) -> None:
    made = cast_at(URL, timeout=99)
    model = made.models["default"]
    model.config = model.config.model_copy(update={"price": Price(prompt=1, completion=2)})
    save(folder, made)
    again = rebuild(folder)
    assert DeliberationJob(again).settings() == DeliberationJob(made).settings()
    assert again.models["default"].config == model.config


async def test_a_run_is_not_changed_by_being_read_from_its_folder(folder: Path) -> None:
    made, _ = cast()
    await execute(folder, made, prompts(1))
    assert DeliberationJob(rebuild(folder)).settings() == DeliberationJob(made).settings()


def test_own_prompts_are_loaded_without_their_file(folder: Path) -> None:
    made, _ = changed("prompt_texts")
    made.recipe = made.recipe.model_copy(update={"prompts": "gone/mine.yaml"})
    save(folder, made)
    loaded = rebuild(folder)
    assert loaded.prompts.hash == made.prompts.hash != find_prompts("default").hash
    assert DeliberationJob(loaded).fingerprints() == DeliberationJob(made).fingerprints()


def test_other_models_can_be_named(folder: Path) -> None:
    save(folder, cast_at(URL))
    other = ModelConfig(endpoint=EndpointConfig(base_url=URL, model="other"))
    assert rebuild(folder, {"default": other}).models["default"].config == other


def test_a_secret_that_the_folder_does_not_hold_is_asked_for(folder: Path) -> None:
    made = cast_at(URL)
    settings = DeliberationJob(made).settings()
    settings["models"]["default"]["extra"] = {"headers": [{"key": REDACTED}]}
    save(folder, made, models=settings["models"])
    with pytest.raises(InputError, match=r"run\.yaml does not hold") as caught:
        rebuild(folder)
    assert "--models FILE" in caught.value.remedy
    assert rebuild(folder, {"default": made.models["default"].config})


@pytest.mark.parametrize(
    "changes",
    [{"models": None}, {"recipe": {}}, {"personas": []}, {"policies": 3}, {"prompt_texts": 3}],
)
def test_settings_that_are_none_are_told_of(changes: dict[str, Any], folder: Path) -> None:
    save(folder, cast_at(URL), **changes)
    with pytest.raises(InputError, match="not as aidsafe wrote it") as caught:
        rebuild(folder)
    assert caught.value.remedy
