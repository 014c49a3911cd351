"""Train a small student on a teacher's probabilities: logit distillation from `top_logprobs`, tail mass included.

Plain PyTorch and the official `openai` client: OPENAI_API_KEY and OPENAI_BASE_URL come from the environment. The
teacher is asked up front and its answers are not kept by this script: behind kdproxy a second start buys nothing. Five
lines are trainhooks' (marked `# hooks`): a killed run resumes where it stopped and ends with the same weights.

The loss. An API returns the teacher's k most likely tokens, not its logits. To renormalise those to 1 would teach a
sharper distribution than the teacher's: top-k alone is biased (Anshumann et al., "Sparse Logit Sampling", ACL 2025). So
all other tokens together are one more class, and the student is trained on the divergence of the k + 1 classes

    KL = sum_i p_i log(p_i / q_i) + p_rest log(p_rest / q_rest),   p_rest = 1 - sum_i p_i,   q_rest = 1 - sum_i q_i

with the teacher's p and the student's q, at temperature 1, mean over the answer's tokens, in nats. It never exceeds the
divergence over the whole vocabulary (log-sum inequality) and says nothing of how the rest is divided. TRL has it as
`loss_add_tail` in its ServerDistillationTrainer (trl 1.16).
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import torch
from openai import OpenAI
from openai.types.chat import ChatCompletionTokenLogprob
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from trainhooks import training_progress_context  # hooks

PROMPTS = Path(__file__).with_name("prompts.txt")
HOLD_OUT_EVERY = 6
TOP = 10
BYTES = 256
NEVER = -1e4  # the log of no probability at all, without the NaN that 0 * -inf makes

Answer = list[ChatCompletionTokenLogprob]


def ask_teacher(model: str, prompts: Sequence[str], max_tokens: int) -> list[Answer]:
    """Buy an answer to every prompt, four at a time."""
    client = OpenAI()

    def ask(prompt: str) -> Answer:
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            temperature=0,
            max_tokens=max_tokens,
            logprobs=True,
            top_logprobs=TOP,
        )
        logprobs = answer.choices[0].logprobs
        return (logprobs.content if logprobs else None) or []

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, prompt) for prompt in prompts]
        for _ in tqdm(as_completed(asked), desc="teacher", total=len(prompts)):
            pass  # in order of arrival: one slow answer does not stop the bar
        return [each.result() for each in asked]


def vocabulary_of(answers: Sequence[Answer]) -> dict[str, int]:
    """Number the tokens that the teacher said or thought of; the number after the last one is for any other token."""
    seen = {token.token for answer in answers for token in answer}
    seen |= {entry.token for answer in answers for token in answer for entry in token.top_logprobs}
    return {token: number for number, token in enumerate(sorted(seen))}


class Example(NamedTuple):
    """One prompt (bytes) and answer (tokens), laid out for predicting the next token. A batch has the same fields."""

    inputs: Tensor
    """(length,) of int64; in a batch (rows, longest)."""
    is_asked: Tensor
    """Like `inputs`, bool: where the answer's next token is to be predicted."""
    ids: Tensor
    """(answer's tokens, TOP): the teacher's most likely tokens, -1 where there are fewer; a batch's are stacked."""
    probabilities: Tensor
    """Like `ids`: the teacher's; what they leave of 1 is the rest's."""


def example_of(prompt: str, answer: Answer, vocabulary: dict[str, int]) -> Example:
    """Lay out one sample. A token that the student does not know counts as one of the rest."""
    asked = list(prompt.encode())
    given = [BYTES + vocabulary.get(token.token, len(vocabulary)) for token in answer]
    ids = torch.full((len(answer), TOP), -1)
    probabilities = torch.zeros(len(answer), TOP)
    for place, token in enumerate(answer):
        # Tokens of different bytes can have one spelling: halves of a character.
        mass: dict[int, float] = defaultdict(float)
        for entry in token.top_logprobs:
            if entry.token in vocabulary:
                mass[vocabulary[entry.token]] += math.exp(entry.logprob)
        for rank, (number, probability) in enumerate(mass.items()):
            ids[place, rank], probabilities[place, rank] = number, probability
    inputs = torch.tensor((asked + given)[:-1])
    is_asked = torch.arange(len(inputs)) >= len(inputs) - len(answer)
    return Example(inputs, is_asked, ids, probabilities)


def collate(examples: Sequence[Example]) -> Example:
    """Put examples of different lengths together."""
    inputs, is_asked, ids, probabilities = zip(*examples, strict=True)
    return Example(
        pad_sequence(list(inputs), batch_first=True),
        pad_sequence(list(is_asked), batch_first=True),
        torch.cat(ids),
        torch.cat(probabilities),
    )


class Student(nn.Module):
    """A GRU that reads the prompt's bytes and the answer's tokens so far."""

    def __init__(self, tokens: int, width: int = 128) -> None:
        super().__init__()
        self.embed = nn.Embedding(BYTES + tokens + 1, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(width, tokens + 1)

    def forward(self, inputs: Tensor, is_asked: Tensor) -> Tensor:
        """Return logits, shape (places asked for, tokens + 1)."""
        hidden, _ = self.gru(self.drop(self.embed(inputs)))
        return self.head(self.drop(hidden[is_asked]))


def distillation_loss(logits: Tensor, ids: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss above in its two parts, the named tokens' and the rest's; the loss is their sum."""
    log_q = logits.log_softmax(-1).gather(-1, ids.clamp(min=0)).masked_fill(ids < 0, NEVER)
    q_rest = (1 - log_q.exp().sum(-1)).clamp(min=1e-6)
    p_rest = (1 - probabilities.sum(-1)).clamp(min=0)
    named = torch.special.xlogy(probabilities, probabilities) - probabilities * log_q
    rest = torch.special.xlogy(p_rest, p_rest) - p_rest * q_rest.log()
    return named.sum(-1).mean(), rest.mean()


@torch.no_grad()
def held_out_loss(student: Student, batch: Example) -> float:
    """Measure the loss on answers that the student is not trained on, in nats per token."""
    student.eval()
    named, rest = distillation_loss(student(batch.inputs, batch.is_asked), batch.ids, batch.probabilities)
    student.train()
    return (named + rest).item()


def main() -> None:
    """Ask the teacher, train the student, measure it before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gpt-4o-mini", help="the teacher")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="one question a line")
    parser.add_argument("--limit", type=int, default=None, help="ask only the first N")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("student-kd"))
    args = parser.parse_args()
    out, total = args.out, args.steps

    prompts = args.prompts.read_text(encoding="utf-8").splitlines()[: args.limit]
    answers = ask_teacher(args.model, prompts, args.max_tokens)
    held_out = range(0, len(prompts), HOLD_OUT_EVERY)
    trained_on = [number for number in range(len(prompts)) if number not in held_out]
    vocabulary = vocabulary_of([answers[number] for number in trained_on])
    examples = [example_of(prompt, answer, vocabulary) for prompt, answer in zip(prompts, answers, strict=True)]
    test = collate([examples[number] for number in held_out])

    torch.manual_seed(1)
    student = Student(len(vocabulary))
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    before = held_out_loss(student, test)
    config = {"seed": 1, "teacher": args.model, "max_tokens": args.max_tokens, "top": TOP}
    state = {"student": student, "optimizer": optimizer, "scheduler": scheduler}
    with training_progress_context(config, out, total, state=state, checkpoint_every_steps=20) as progress:  # hooks
        progress.loader([examples[number] for number in trained_on], batch_size=4, collate_fn=collate)  # hooks
        bar = tqdm(progress.steps(), desc="student", initial=progress.current_step, total=total)  # hooks
        for step, batch in bar:
            named, rest = distillation_loss(student(batch.inputs, batch.is_asked), batch.ids, batch.probabilities)
            loss = named + rest
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            progress.update_metrics(step=step, loss=loss, loss_components={"named": named, "rest": rest})  # hooks

    save_file(student.state_dict(), out / "student.safetensors")
    print(f"held-out loss: {before:.4f} before, {held_out_loss(student, test):.4f} after (nats per token)")


if __name__ == "__main__":
    main()
