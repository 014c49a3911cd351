"""What the user decides about checkpoints: when, which ones stay, and how they are written."""

from dataclasses import dataclass

from trainhooks.core.argument import is_number, is_whole
from trainhooks.core.retention import Best, Retention
from trainhooks.errors import ConfigInvalid

PATIENCE_SECONDS = 1_800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointPolicy:
    """When checkpoints are taken and which ones stay.

    Raises:
        ConfigInvalid: naming every value that cannot be used.
    """

    every_steps: int | None = None
    every_seconds: float | None = 600.0
    keep_last: int = 3
    """At least 2."""
    keep_best: Best | None = None
    keep_every_steps: int | None = None
    """Those at multiples of this many steps stay for good."""
    keep_tags: tuple[str, ...] = ()
    """Those that carry one of these stay for good; so does what is tagged `pinned`."""
    max_overhead: float | None = 0.05
    """The part of the training's time that saving may cost before it is done less often; None: as often as said."""
    asynchronous: bool = True
    """Write while the training continues. A save that is due while another is being written does not block: it is taken
    at the first step after. False: the training waits until each checkpoint is durable."""
    device_snapshot: bool = True
    """Copy on the GPU first where its memory has room for a second copy of the state."""
    gradients: str = "auto"
    """`auto`: values of gradients that the loop has shown to drop before the next optimizer step are left out;
    `always`: the values of every gradient are saved."""
    patience_seconds: float = PATIENCE_SECONDS
    """How long a rank waits for another one: at least as long as the slowest rank writes and rank 0 reads back."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)!r} and must be {what}"
            for name, is_good, what in (
                ("every_steps", self.every_steps is None or is_whole(self.every_steps, 1), "a whole number, 1 or more"),
                ("every_seconds", self.every_seconds is None or _is_positive(self.every_seconds), "more than 0"),
                (
                    "keep_last",
                    is_whole(self.keep_last, 2),
                    "a whole number, 2 or more: a damaged newest one needs something to fall back to",
                ),
                (
                    "keep_best",
                    self.keep_best is None or isinstance(self.keep_best, Best),
                    "a Best, such as Best(metric='val_loss')",
                ),
                (
                    "keep_every_steps",
                    self.keep_every_steps is None or is_whole(self.keep_every_steps, 1),
                    "a whole number, 1 or more",
                ),
                ("keep_tags", _are_texts(self.keep_tags), "a tuple of texts, such as ('paper',)"),
                ("asynchronous", isinstance(self.asynchronous, bool), "True or False"),
                ("device_snapshot", isinstance(self.device_snapshot, bool), "True or False"),
                ("gradients", self.gradients in ("auto", "always"), "'auto' or 'always'"),
                ("patience_seconds", _is_positive(self.patience_seconds), "more than 0"),
                (
                    "max_overhead",
                    self.max_overhead is None or (_is_positive(self.max_overhead) and self.max_overhead <= 1),
                    "above 0 and at most 1",
                ),
            )
            if not is_good
        ]
        if problems:
            raise ConfigInvalid(f"The checkpoint policy cannot be used: {'; '.join(problems)}.", hint="Change it.")

    @property
    def retention(self) -> Retention:
        """The part of it that says what stays."""
        return Retention(
            keep_last=self.keep_last,
            keep_best=self.keep_best,
            keep_every_steps=self.keep_every_steps,
            keep_tags=frozenset(self.keep_tags),
        )


def _is_positive(value: object) -> bool:
    return is_number(value, least=0) and value != 0


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple | list | set | frozenset) and all(isinstance(each, str) for each in value)
