"""Train a small student on a teacher's worked answers: sequence-level distillation, byte by byte.

The teacher is asked to work each question out step by step, and the student learns its whole text by cross-entropy
(Kim and Rush, "Sequence-Level Knowledge Distillation", EMNLP 2016; on the steps beside the answer: Hsieh et al.,
"Distilling Step-by-Step!", Findings of ACL 2023).

Plain PyTorch and the official `openai` client: OPENAI_API_KEY and OPENAI_BASE_URL come from the environment. A text is
bought when the loader first wants it, by worker processes beside the training, and is not kept by this script: behind
kdproxy a second start buys nothing. Five lines are trainhooks' (marked `# hooks`): with them a run that was killed goes
on where it stood, to the same weights.
"""

import argparse
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from openai import OpenAI
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from tqdm import tqdm

from trainhooks import training_progress_context  # hooks

PROMPTS = Path(__file__).with_name("prompts.txt")
SYSTEM = "Work the question out step by step, then give the answer."
HOLD_OUT_EVERY = 6
ANSWER, END = 256, 257  # after the 256 bytes
CONTEXT_BYTES = 512
NOT_ASKED = -100  # what cross_entropy leaves out

Row = tuple[Tensor, Tensor]
"""Inputs and targets, both (length,) of int64; in a batch (rows, longest)."""


class TeacherTexts(Dataset[Row]):
    """Questions with the teacher's answers, each bought when it is first wanted and remembered by this process."""

    def __init__(self, model: str, prompts: Sequence[str], max_tokens: int) -> None:
        self.model = model
        self.prompts = prompts
        self.max_tokens = max_tokens
        self.rows: dict[int, Row] = {}

    @cached_property
    def client(self) -> OpenAI:
        """Made where it is used: each worker process has connections of its own."""
        return OpenAI()

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int) -> Row:
        if index not in self.rows:
            self.rows[index] = row_of(self.prompts[index], *self.ask(self.prompts[index]))
        return self.rows[index]

    def ask(self, prompt: str) -> tuple[str, bool]:
        """Ask the teacher; returns its text and whether it came to its end."""
        answer = self.client.chat.completions.create(
            model=self.model,
            messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}],
            temperature=0,
            max_tokens=self.max_tokens,
        )
        return answer.choices[0].message.content or "", answer.choices[0].finish_reason == "stop"


def row_of(prompt: str, text: str, has_ended: bool) -> Row:
    """Lay out question and answer for predicting the answer's next byte, and its end where it has one."""
    asked = [*prompt.encode(), ANSWER]
    given = [*text.encode(), *([END] if has_ended else [])]
    line = torch.tensor((asked + given)[: CONTEXT_BYTES + 1])
    targets = line[1:].clone()
    targets[: len(asked) - 1] = NOT_ASKED
    return line[:-1], targets


def collate(rows: Sequence[Row]) -> Row:
    """Put rows of different lengths together."""
    inputs, targets = zip(*rows, strict=True)
    return (
        pad_sequence(list(inputs), batch_first=True),
        pad_sequence(list(targets), batch_first=True, padding_value=NOT_ASKED),
    )


class Student(nn.Module):
    """A transformer of two layers on bytes."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.embed = nn.Embedding(END + 1, width)
        self.place = nn.Embedding(CONTEXT_BYTES, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, END + 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, shape (rows, length, END + 1)."""
        length = inputs.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.embed(inputs) + self.place(torch.arange(length))
        return self.head(self.layers(hidden, mask, is_causal=True))


def text_loss(student: Student, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of the answers' bytes, in nats per byte."""
    return cross_entropy(student(inputs).flatten(0, 1), targets.flatten(), ignore_index=NOT_ASKED)


@torch.no_grad()
def held_out_loss(student: Student, batch: Row) -> float:
    """Measure the loss on texts that the student is not trained on."""
    student.eval()
    loss = text_loss(student, *batch)
    student.train()
    return loss.item()


def main() -> None:
    """Train the student on what the teacher says, measure it before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gpt-4o-mini", help="the teacher")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="one question a line")
    parser.add_argument("--limit", type=int, default=None, help="ask only the first N")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("student-process"))
    args = parser.parse_args()
    out, total = args.out, args.steps

    prompts = args.prompts.read_text(encoding="utf-8").splitlines()[: args.limit]
    trained_on = [prompt for number, prompt in enumerate(prompts) if number % HOLD_OUT_EVERY]
    texts = TeacherTexts(args.model, trained_on, args.max_tokens)
    held_out = TeacherTexts(args.model, prompts[::HOLD_OUT_EVERY], args.max_tokens)
    test = collate([held_out[index] for index in range(len(held_out))])

    torch.manual_seed(1)
    student = Student()
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=total)
    before = held_out_loss(student, test)
    config = {"seed": 1, "teacher": args.model, "system": SYSTEM, "max_tokens": args.max_tokens}
    state = {"student": student, "optimizer": optimizer, "scheduler": scheduler}
    with training_progress_context(config, out, total, state=state, checkpoint_every_steps=20) as progress:  # hooks
        progress.loader(texts, batch_size=4, collate_fn=collate, num_workers=2, persistent_workers=True)  # hooks
        bar = tqdm(progress.steps(), desc="student", initial=progress.current_step, total=total)  # hooks
        for step, batch in bar:
            loss = text_loss(student, *batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            progress.update_metrics(step=step, loss=loss, learning_rate=scheduler.get_last_lr()[0])  # hooks

    save_file(student.state_dict(), out / "student.safetensors")
    print(f"held-out loss: {before:.4f} before, {held_out_loss(student, test):.4f} after (nats per byte)")


if __name__ == "__main__":
    main()
