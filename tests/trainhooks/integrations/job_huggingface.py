"""A small training by Hugging Face's Trainer: python job_huggingface.py OUTPUT_DIR KILL_AT|term-STEP|never [sft]."""
# mypy: disable-error-code="attr-defined"

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

from trainhooks import newest_good_checkpoint, read_metrics
from trainhooks.integrations.huggingface import TrainhooksCallback
from trainhooks.storage.receipts import issued

TOTAL = 16
EVERY = 4


class Lines(Dataset[dict[str, Any]]):
    """Token ids that follow a rule."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = torch.arange(index, index + 12) % 32
        return {"input_ids": ids, "labels": ids.clone()}


class Killer(TrainerCallback):
    """SIGKILL when a step ends, once what was saved before has its receipt."""

    def __init__(self, kill_at: str) -> None:
        self.kill_at = kill_at

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if f"term-{state.global_step}" == self.kill_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if str(state.global_step) == self.kill_at:
            while len(issued(Path(args.output_dir))) < state.global_step // EVERY:
                time.sleep(0.005)
            while read_metrics(args.output_dir)[-1]["step"] < state.global_step - 2:  # rows for the certificate
                time.sleep(0.005)
            os.kill(os.getpid(), signal.SIGKILL)


def model() -> GPT2LMHeadModel:
    set_seed(1)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    )


def options(out: Path) -> dict[str, Any]:
    return {
        "output_dir": str(out),
        "max_steps": TOTAL,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "save_steps": EVERY,
        "save_total_limit": 3,
        "eval_strategy": "steps",
        "eval_steps": 8,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 1,
    }


def trainer(out: Path, kind: str, callbacks: list[TrainerCallback]) -> Trainer:
    if kind != "sft":
        return Trainer(
            model=model(),
            args=TrainingArguments(**options(out)),
            train_dataset=Lines(),
            eval_dataset=Lines(),
            callbacks=callbacks,
        )
    from datasets import Dataset as Table
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = {word: number for number, word in enumerate(["<pad>", "<unk>", *(f"w{number}" for number in range(62))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    rows = [{"text": " ".join(f"w{(start + place) % 62}" for place in range(12))} for start in range(24)]
    return SFTTrainer(
        model=model(),
        args=SFTConfig(**options(out), max_length=32),
        train_dataset=Table.from_list(rows),
        eval_dataset=Table.from_list(rows[:4]),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<pad>"
        ),
        callbacks=callbacks,
    )


def main() -> None:
    out, kill_at, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    training = trainer(out, kind, [TrainhooksCallback(config={"experiment": "tiny"}), Killer(kill_at)])
    found = newest_good_checkpoint(out)
    print("from", found, flush=True)
    assert training.model is not None
    training.train(resume_from_checkpoint=found)
    digest = {name: value.double().sum().item() for name, value in training.model.state_dict().items()}
    (out / "final.json").write_text(json.dumps([digest, torch.rand(1).item()]))


if __name__ == "__main__":
    main()
