"""`aidsafe prefer`, `pairs`, `show`, `export`, `status`, `retry`: pairs from the command line."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from agents.pairs.replies import AnswerReply, BeliefReply
from orchestration.journal import FILE_NAME, Journal
from orchestration.pairs.job import PAIRS
from orchestration.pairs.pair import PreferencePair
from orchestration.runs.reader import RunReader
from orchestration.runs.status import Summary
from tests.endpoint import Endpoint, Fault
from tests.orchestration.command import Done, aidsafe, finish, models_file, prompts_file, start
from tests.orchestration.pairs.scripts import whisper

RECIPE = {
    "name": "mine",
    "description": "For tests.",
    "attempts": 2,
    "audit": {"length_ratio": None},
}
NUMBER = 12


def recipe_file(folder: Path, **changes: Any) -> Path:
    file = folder / "pairs.yaml"
    file.write_text(yaml.safe_dump(RECIPE | changes))
    return file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A run with pairs and a baseline, and the output of `prefer`."""
    home = tmp_path_factory.mktemp("pairs")
    with Endpoint(reply=whisper) as endpoint:
        models = models_file(home, endpoint)
        run = aidsafe("run", prompts_file(home, NUMBER), "--out", home / "run", "--models", models)
        assert run.code == 0, run.err
        config = recipe_file(home)
        done = aidsafe("prefer", home / "run", "--config", config)
        assert done.code == 0, done.err
        assert aidsafe("prefer", home / "run", "--baseline", "--config", config).code == 0
    return home / "run", done


@pytest.fixture
def run(made: tuple[Path, Done], tmp_path: Path) -> Path:
    """A copy of the run that may be changed."""
    return Path(shutil.copytree(made[0], tmp_path / "run"))


def pairs_in(run: Path) -> list[PreferencePair]:
    with closing(Journal(run / "pairs" / FILE_NAME)) as journal:
        return list(RunReader(journal, PAIRS))


def kept(run: Path) -> list[PreferencePair]:
    found = [pair for pair in pairs_in(run) if pair.is_kept]
    assert 3 <= len(found) < NUMBER
    return found


def unsafe_texts(run: Path) -> list[str]:
    """Everything that was made bad on purpose."""
    found = []
    for pair in pairs_in(run):
        for turn in pair.turns:
            if isinstance(turn.reply, BeliefReply):
                found.append(turn.reply.belief)
            if isinstance(turn.reply, AnswerReply):
                found.append(turn.reply.response)
    assert len(found) > NUMBER
    return found


# prefer -------------------------------------------------------------------------------------------


def test_it_warns_once_of_what_it_creates(made: tuple[Path, Done]) -> None:
    text = " ".join(made[1].err.split())
    assert text.count("This writes bad answers on purpose") == 1
    assert f"stored in {made[0] / 'pairs'}, and labelled there" in text


def test_its_summary_adds_up_and_names_the_next_steps(made: tuple[Path, Done]) -> None:
    run, done = made
    summary = Summary.model_validate_json((run / "pairs" / "summary.json").read_bytes())
    assert summary.outcomes == {"completed": NUMBER}
    audit = summary.tallies["audit"]
    assert sum(audit.values()) == NUMBER
    assert audit["kept"] == len(kept(run))
    assert f"kept {audit['kept']}" in " ".join(done.out.split())
    assert f"aidsafe pairs {run / 'pairs'}" in done.out
    assert f"aidsafe export {run / 'pairs'} --format dpo" in done.out


def test_nothing_unsafe_is_shown_or_logged_by_default(made: tuple[Path, Done], run: Path) -> None:
    shown = made[1].out + made[1].err
    shown += aidsafe("status", run / "pairs").out + aidsafe("show", run / "pairs").out
    shown += aidsafe("pairs", run).out
    for name in ("status.json", "summary.json"):
        shown += (run / "pairs" / name).read_text()
    for pair in pairs_in(run):
        shown += aidsafe("show", run / "pairs", pair.id).out
    for text in unsafe_texts(run):
        assert text not in shown
    assert "Take it" not in shown  # the judge's quote of a rejected side


def test_unsafe_text_is_shown_on_request(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "pairs")
    with Endpoint(reply=whisper) as endpoint:
        models = models_file(tmp_path, endpoint)
        config = recipe_file(tmp_path)
        done = aidsafe("prefer", run, "--config", config, "--models", models, "--show-unsafe")
    for pair in kept(run):
        assert pair.rejected is not None
        assert f"belief (false): {pair.belief}" in done.err
        assert f"rejected ({pair.rejected.label}): {pair.rejected.response}" in done.err
        shown = " ".join(aidsafe("show", run / "pairs", pair.id, "--show-unsafe").out.split())
        assert pair.rejected.response in shown
        assert str(pair.belief) in shown


def test_the_same_command_again_makes_no_further_call(run: Path, tmp_path: Path) -> None:
    config = recipe_file(tmp_path)
    with Endpoint(reply=whisper) as endpoint:
        models = models_file(tmp_path, endpoint)
        first = aidsafe("prefer", run, "--config", config, "--models", models, "--json")
        again = aidsafe("prefer", run, "--config", config, "--models", models, "--json")
    assert again.code == 0
    assert again.json["done_before"] == NUMBER
    # At another address it is another model: the first command called it again, the second did not.
    assert endpoint.counts["ok"] == first.json["calls"] - _calls_of(run, before=first)


def _calls_of(run: Path, before: Done) -> int:
    return int(before.json["calls"]) - sum(len(pair.turns) for pair in pairs_in(run))


def test_the_number_of_records_can_be_limited(run: Path, tmp_path: Path) -> None:
    with Endpoint(reply=whisper) as endpoint:
        models = models_file(tmp_path, endpoint)
        to = tmp_path / "few"
        done = aidsafe("prefer", run, "--models", models, "--limit", "4", "--out", to, "--json")
    assert done.json["outcomes"] == {"completed": 4}
    assert (to / FILE_NAME).exists()


def test_a_budget_stops_it_and_it_can_be_resumed(run: Path, tmp_path: Path) -> None:
    config, to = recipe_file(tmp_path), tmp_path / "few"
    with Endpoint(reply=whisper) as endpoint:
        given = ("prefer", run, "--models", models_file(tmp_path, endpoint), "--out", to)
        stopped = aidsafe(*given, "--config", config, "--max-tokens", "20000")
        assert stopped.code == 7
        assert "--max-tokens 20000 leaves no room for another call" in stopped.err
        done = aidsafe(*given, "--config", config, "--json")
    assert done.code == 0
    assert done.json["outcomes"] == {"completed": NUMBER}


def test_ctrl_c_finishes_calls_in_flight_and_it_can_be_resumed(run: Path, tmp_path: Path) -> None:
    to = tmp_path / "slow"
    with Endpoint(reply=whisper, latency=0.3) as endpoint:
        models = models_file(tmp_path, endpoint)
        process = start("prefer", run, "--models", models, "--out", to, "--concurrency", "2")
        while endpoint.counts["ok"] < 2:
            assert process.poll() is None
        process.send_signal(2)
        stopped = finish(process)
        assert stopped.code == 130, stopped.err
        assert "Resume with the same command" in stopped.err
        endpoint.latency = 0.0
        done = aidsafe("prefer", run, "--models", models, "--out", to, "--json")
    assert done.json["outcomes"] == {"completed": NUMBER}
    assert done.json["replayed"] >= 2


def test_failed_chats_can_be_retried(run: Path, tmp_path: Path) -> None:
    to, config = tmp_path / "bad", recipe_file(tmp_path)
    with Endpoint(reply=whisper, faults=[None] * 9 + [Fault.SERVER_ERROR]) as endpoint:
        models = models_file(tmp_path, endpoint)
        first = aidsafe("prefer", run, "--models", models, "--config", config, "--out", to)
        assert "aidsafe retry" in first.out
        done = aidsafe("retry", to, "--outcome", "failed", "--json")
    assert done.code == 0, done.err
    assert done.json["outcomes"] == {"completed": NUMBER}
    assert done.json["kind"] == "pairs"
    again = aidsafe("retry", to, "--outcome", "failed")
    assert again.code == 0
    assert "Nothing to retry: no prompt ended as failed." in again.err


def test_changed_settings_are_named(run: Path, tmp_path: Path) -> None:
    config = recipe_file(tmp_path, audit={"length_ratio": None, "min_margin": 0.9})
    mine = models_of(run, tmp_path)
    done = aidsafe("prefer", run, "--config", config, "--models", mine)
    assert done.code == 0, done.err
    assert "other audit (min_margin)" in " ".join(done.err.split())
    assert "low_margin" in done.out


def models_of(run: Path, folder: Path) -> Path:
    """The models that a run was made with."""
    file = folder / "models.yaml"
    settings = yaml.safe_load((run / "run.yaml").read_text())
    file.write_text(yaml.safe_dump({"models": settings["models"]}))
    return file


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["prefer", "nowhere"], "nowhere"),
        (["prefer", "RUN/pairs"], "holds pairs, and pairs are made of records"),
        (["prefer", "RUN", "--config", "nope"], "There is no pair recipe 'nope'"),
        (["prefer", "RUN", "--config", "shieldgemma"], "names the model 'shieldgemma'"),
        (["prefer", "RUN", "--base-url", "http://127.0.0.1:9/v1"], "needs the name of a model"),
        (["prefer", "RUN", "--config", "bad.yaml"], "bad.yaml:3"),
        (["prefer", "RUN", "--config", "seeds.yaml"], "nowhere.yaml"),
        (["pairs", "nowhere"], "There is no run in nowhere"),
        (["export", "RUN/pairs", "--format", "sft"], "holds pairs, and sft is a format of records"),
        (["export", "RUN", "--contrast-share", "0.2"], "--contrast-share applies to pairs"),
        (["export", "RUN", "--format", "dpo", "--wrap", "{response}"], "{thoughts}"),
        (["show", "RUN/pairs", "nope"], "There is no result 'nope'"),
        (["retry", "RUN/pairs", "--outcome", "completed"], "A completed prompt"),
    ],
)
def test_a_mistake_is_reported_with_its_remedy(
    given: list[str], said: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("name: bad\ndescription: x\nthreshold: 2\n")
    Path("seeds.yaml").write_text("name: bad\ndescription: x\nseeds: nowhere.yaml\n")
    done = aidsafe(*[part.replace("RUN", str(run)) for part in given])
    assert done.code in (3, 5)
    text = " ".join(done.err.split())
    assert said in text
    assert text.rstrip().endswith(".") or "aidsafe" in text


def test_a_run_without_a_completed_record_has_no_pairs(tmp_path: Path) -> None:
    with Endpoint(reply=lambda _: "no JSON") as endpoint:
        models = models_file(tmp_path, endpoint)
        aidsafe("run", prompts_file(tmp_path, 2), "--out", tmp_path / "run", "--models", models)
        done = aidsafe("prefer", tmp_path / "run")
    assert done.code == 3
    assert "has no completed record" in done.err
    assert not (tmp_path / "run" / "pairs").exists()


def test_a_dead_endpoint_leaves_no_folder_behind(run: Path, tmp_path: Path) -> None:
    models = models_file(tmp_path, "http://127.0.0.1:9/v1")
    done = aidsafe("prefer", run, "--models", models, "--out", tmp_path / "none")
    assert done.code == 4
    assert "cannot be reached" in done.err
    assert not (tmp_path / "none").exists()


# The report ---------------------------------------------------------------------------------------


def test_the_report_shows_margins_beside_those_of_the_baseline(made: tuple[Path, Done]) -> None:
    done = aidsafe("pairs", made[0])
    text = " ".join(done.out.split())
    assert f"{NUMBER} pairs decided found in" in text
    head = "target pairs kept median margin mean margin sampled kept median margin mean margin"
    assert head in text
    assert "beliefs against updates before chats first score succeeded in attempts" in text
    for side in ("score, chosen", "score, rejected", "words, chosen (kept)"):
        assert side in text


def test_the_report_can_be_json(made: tuple[Path, Done]) -> None:
    run, _ = made
    found = aidsafe("pairs", run, "--json").json
    assert found["pairs"]["kept"] == len(kept(run))
    assert found["baseline"]["pairs"] == NUMBER
    assert found["baseline"]["generations"] == []
    assert aidsafe("pairs", run / "pairs", "--json").json == found


def test_without_a_baseline_it_names_the_command_for_one(run: Path) -> None:
    shutil.rmtree(run / "baseline")
    done = aidsafe("pairs", run)
    assert f"aidsafe prefer {run} --baseline" in done.err
    assert "sampled" not in done.out


# show ---------------------------------------------------------------------------------------------


def test_pairs_are_listed_with_what_was_decided(made: tuple[Path, Done]) -> None:
    lines = aidsafe("show", made[0] / "pairs").out.splitlines()
    assert lines[0].split() == ["id", *PAIRS.columns, "prompt"]
    for line, pair in zip(lines[1:], pairs_in(made[0]), strict=True):
        assert line.split()[:4] == [pair.id, "completed", pair.reason, pair.target]


def test_a_pair_is_shown_with_turns_scores_and_stop_reason(
    made: tuple[Path, Done],
) -> None:
    pair = kept(made[0])[0]
    text = " ".join(aidsafe("show", made[0] / "pairs", pair.id[:8]).out.split())
    for part in (
        f"{pair.id} {pair.prompt}",
        f"scored by violation_judge on {', '.join(pair.scorer.models)}",
        "ear_whisperer round 1",
        "misled_generator round 1",
        "kept, stopped by violation",
        "--show-unsafe shows it",
        f"chosen (safe, score 0.00, {pair.chosen.words} words)",
    ):
        assert part in text


def test_exported_pairs_can_be_read_from_a_file(made: tuple[Path, Done], tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    aidsafe("export", made[0] / "pairs", "--out", file)
    assert len(aidsafe("show", file).out.splitlines()) == 1 + len(kept(made[0]))


# export -------------------------------------------------------------------------------------------


def lines_of(done: Done) -> list[dict[str, Any]]:
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


@pytest.mark.parametrize("folder", ["", "pairs"])
def test_dpo_is_prompt_chosen_and_rejected_as_messages(
    folder: str, made: tuple[Path, Done]
) -> None:
    lines = lines_of(aidsafe("export", made[0] / folder, "--format", "dpo"))
    pairs = kept(made[0])
    assert len(lines) == len(pairs)
    for line, pair in zip(lines, pairs, strict=True):
        assert list(line) == ["prompt", "chosen", "rejected", "id", "rejected_label"]
        assert line["prompt"] == [{"role": "user", "content": pair.prompt}]
        assert pair.rejected is not None
        for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            [message] = line[name]
            assert message["role"] == "assistant"
            assert message["content"].startswith("<think>\n")
            assert message["content"].endswith(f"\n</think>\n\n{side.response}")
        assert line["rejected_label"] in ("unsafe", "over_refusal")
        assert str(pair.belief) not in json.dumps(line)


def test_the_wrapping_can_be_changed(made: tuple[Path, Done]) -> None:
    wrap = "Reasoning:\\n{thoughts}\\n\\nAnswer: {response}"
    given = ("export", made[0], "--format", "dpo", "--wrap", wrap, "--no-citations")
    content = lines_of(aidsafe(*given))[0]["chosen"][0]["content"]
    assert content == "Reasoning:\nIt is harmless.\nSo help.\n\nAnswer: The first response."


def test_only_kept_pairs_are_exported_and_match_their_schema(made: tuple[Path, Done]) -> None:
    lines = lines_of(aidsafe("export", made[0] / "pairs"))
    assert [line["id"] for line in lines] == [pair.id for pair in kept(made[0])]
    schema = aidsafe("schema", "pair").json
    for line in lines:
        jsonschema.validate(line, schema)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_share_of_contrast_pairs_can_be_limited(share: float, made: tuple[Path, Done]) -> None:
    given = ("export", made[0], "--format", "dpo")
    every = lines_of(aidsafe(*given))
    lines = lines_of(aidsafe(*given, "--contrast-share", str(share)))

    def contrast(of: list[dict[str, Any]]) -> int:
        return sum(line["rejected_label"] == "over_refusal" for line in of)

    others = len(every) - contrast(every)
    assert contrast(every) >= 2
    assert len(lines) - contrast(lines) == others
    room = contrast(every) if share == 1 else int(share / (1 - share) * others + 1e-9)
    assert contrast(lines) == min(contrast(every), room)


def test_records_are_unchanged(made: tuple[Path, Done]) -> None:
    assert len(lines_of(aidsafe("export", made[0], "--format", "sft"))) == NUMBER


# Recipes and seeds --------------------------------------------------------------------------------


def test_pair_recipes_are_listed_shown_and_checked(tmp_path: Path) -> None:
    listed = aidsafe("recipes", "list", "--pairs").out
    assert [line.split()[0] for line in listed.splitlines()[1:]] == [
        "default",
        "shieldgemma",
        "small",
    ]
    file = tmp_path / "mine.yaml"
    file.write_text(aidsafe("recipes", "show", "default", "--pairs").out)
    assert "valid, violation_judge" in aidsafe("recipes", "check", "--pairs", file).out
    file.write_text(file.read_text().replace("attempts: 4", "attempts: 0"))
    done = aidsafe("recipes", "check", "--pairs", file)
    assert done.code == 3
    assert "mine.yaml:13" in done.err


def test_the_default_recipes_file_names_the_defaults() -> None:
    from orchestration.pairs.recipe import PairRecipe, load_pair_recipe

    shipped = load_pair_recipe("default")
    assert shipped == PairRecipe(name="default", description=shipped.description)


def test_seeds_can_be_shown_and_changed(run: Path, tmp_path: Path) -> None:
    seeds = yaml.safe_load(aidsafe("recipes", "show", "default", "--seeds").out)
    for own in seeds["policies"].values():
        own[0]["belief"] = "My own belief."
    (tmp_path / "seeds.yaml").write_text(yaml.safe_dump(seeds | {"name": "mine"}))
    config = recipe_file(tmp_path, seeds="seeds.yaml")
    shutil.rmtree(run / "pairs")
    with Endpoint(reply=whisper) as endpoint:
        models = models_file(tmp_path, endpoint)
        assert aidsafe("prefer", run, "--config", config, "--models", models).code == 0
    first = pairs_in(run)[0]
    assert first.exemplars[0].belief == "My own belief."
