"""Exported pairs can be trained on: `datasets` loads them, TRL's DPOTrainer trains on them."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint import Endpoint
from tests.orchestration.command import aidsafe, models_file, prompts_file
from tests.orchestration.pairs.scripts import whisper

PROMPTS = 12  # and nearly as many pairs: some may be set aside
SIDES = ("prompt", "chosen", "rejected")
RECIPE = {"name": "mine", "description": "x", "audit": {"length_ratio": None}}
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `aidsafe export --format dpo` writes of a run and its pairs."""
    folder = tmp_path_factory.mktemp("dpo")
    file, recipe, run = folder / "dpo.jsonl", folder / "mine.yaml", folder / "run"
    recipe.write_text(json.dumps(RECIPE))  # JSON is YAML
    with Endpoint(reply=whisper) as endpoint:
        models = models_file(folder, endpoint)
        prompts = prompts_file(folder, PROMPTS)
        commands: list[list[str | Path]] = [
            ["run", prompts, "--out", run, "--models", models],
            ["prefer", run, "--config", recipe],
            ["export", run, "--format", "dpo", "--out", file],
        ]
        for command in commands:
            done = aidsafe(*command)
            assert done.code == 0, done.err
    return file


@pytest.fixture
def loaded(exported: Path, tmp_path: Path) -> Any:
    """The same, as a data set."""
    datasets: Any = pytest.importorskip(
        "datasets", reason="the extra `data` or `train` is missing: pip install 'aidsafe[data]'"
    )
    return datasets.load_dataset(
        "json", data_files=str(exported), split="train", cache_dir=str(tmp_path / "cache")
    )


@pytest.fixture
def trl() -> Any:
    """TRL, if it is installed."""
    return pytest.importorskip(
        "trl", reason="the extra `train` is missing: pip install 'aidsafe[train]'"
    )


@pytest.fixture
def tokenizer(trl: Any) -> Any:
    """One token a byte, and a chat template; nothing is downloaded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytewise.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bytewise,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        chat_template=TEMPLATE,
    )


@pytest.fixture
def model(tokenizer: Any) -> Any:
    """An untrained language model of a few thousand weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


# datasets ----------------------------------------------------------------------------------------


def test_datasets_load_every_pair_as_lists_of_messages(exported: Path, loaded: Any) -> None:
    assert loaded.num_rows == len(exported.read_text().splitlines()) > PROMPTS / 2
    assert set(loaded.column_names) == {*SIDES, "id", "rejected_label"}
    for side in SIDES:
        of_message = loaded.features[side].feature
        assert {name: value.dtype for name, value in of_message.items()} == {
            "role": "string",
            "content": "string",
        }


def test_datasets_change_nothing(exported: Path, loaded: Any) -> None:
    assert loaded.to_list() == [json.loads(line) for line in exported.read_text().splitlines()]


# TRL ---------------------------------------------------------------------------------------------


def test_trl_sees_conversational_preferences(trl: Any, tokenizer: Any, loaded: Any) -> None:
    for row in loaded:
        assert all(trl.is_conversational({side: row[side]}) for side in SIDES)
        texts = trl.apply_chat_template(row, tokenizer)
        assert texts == {
            "prompt": f"<|user|>{row['prompt'][0]['content']}<|end|><|assistant|>",
            "chosen": f"{row['chosen'][0]['content']}<|end|>",
            "rejected": f"{row['rejected'][0]['content']}<|end|>",
        }


def test_dpo_trainer_trains_on_them(
    trl: Any, tokenizer: Any, model: Any, loaded: Any, tmp_path: Path
) -> None:
    trainer = trl.DPOTrainer(
        model=model,
        ref_model=copy.deepcopy(model),  # TRL would load it by its name, which it lacks
        args=trl.DPOConfig(
            output_dir=str(tmp_path / "trained"),
            max_steps=2,
            per_device_train_batch_size=2,
            max_length=None,
            logging_steps=1,
            bf16=False,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=loaded,  # with `id` and `rejected_label`
        processing_class=tokenizer,
    )

    taken = trainer.train_dataset
    assert taken.num_rows == loaded.num_rows
    for row in taken:
        assert tokenizer.decode(row["prompt_ids"]).endswith("<|assistant|>")
        for side in ("chosen", "rejected"):
            said = tokenizer.decode(row[f"{side}_ids"])
            assert said == f"{row[side][0]['content']}<|end|>"

    done = trainer.train()
    assert trainer.state.global_step == done.global_step == 2
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in [*losses, done.training_loss])
