"""What a training did, on disk: metrics, time, checkpoints, answers, failures. Without torch."""

from __future__ import annotations

import atexit
import logging
import operator
import os
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainhooks.core import argument
from trainhooks.core.certificate import Certificate
from trainhooks.core.config import validate
from trainhooks.core.metric_value import MetricValue
from trainhooks.core.progress import Progress, Summary
from trainhooks.core.row import ATTEMPT, RESERVED
from trainhooks.core.timing import Phase
from trainhooks.errors import ConfigInvalid
from trainhooks.host.launch import launched
from trainhooks.session import value as values
from trainhooks.session.attempt_files import AttemptFiles
from trainhooks.session.calls import TeacherCalls
from trainhooks.session.inputs import INPUTS, InputWindow
from trainhooks.session.late import LateRecords
from trainhooks.session.origins import StepOrigins
from trainhooks.session.recorder import Entry
from trainhooks.session.timekeeping import Timekeeping
from trainhooks.storage import catalog, location, rehearsal
from trainhooks.storage import session as session_file
from trainhooks.storage.branch import REGISTERED
from trainhooks.storage.catalog import Recoverable

if TYPE_CHECKING:
    from trainhooks.pytorch.window import DeviceWindow

log = logging.getLogger("trainhooks")

_PLAIN = values.PLAIN


class ProgressTracker(Timekeeping, TeacherCalls, StepOrigins):
    """A training's records, begun or gone on with.

    Under torchrun only rank 0 writes: elsewhere records are accepted and go nowhere. Every method may be called from
    any thread.

    Args:
        config: of the run; a mapping or an object with attributes. Stored, credentials starred.
        output_dir: its `progress/` holds the files. One process at a time writes there.
        total_steps: steps of the whole training.
        database: the experiment database that is told of the run; True: `experiments.db` in the folder that output_dir
            lies in (docs/formats/registry.md has the exceptions), False: none.

    Raises:
        ConfigInvalid: every problem of the arguments at once.
        SessionBusy: another process writes to this directory; says which.
        SessionInvalid: session.json is damaged.
        DirectoryUnusable: the directory cannot be written to.
    """

    def __init__(
        self,
        config: Any,
        output_dir: str | os.PathLike[str],
        total_steps: int,
        *,
        database: str | os.PathLike[str] | bool = True,
    ) -> None:
        location.flag_or_path("database=", database)
        if type(self) is ProgressTracker:
            rehearsal.refuse("A loop of records alone, or a trainer's callback,")
        self.config = validate(config, total_steps)
        total_steps = operator.index(total_steps)
        Timekeeping.__init__(self)
        TeacherCalls.__init__(self)
        StepOrigins.__init__(self)
        self.output_dir = location.directory(output_dir)  # absolute: the loop may change its working directory
        self.directory = self.output_dir / "progress"
        self.total_steps = total_steps
        self.current_step = 0
        """Steps finished so far, over all attempts."""
        self._first_step = 0
        """Steps that were finished where this attempt goes on."""
        self._resumed_at: int | None = None
        self._counts_rows = True
        """Whether a row ends its step; a loop that is driven by `steps()` ends them itself."""
        self._pid = os.getpid()
        self._inputs = InputWindow()
        self._extra: dict[str, Any] | None = None
        self._window: DeviceWindow | None = None
        self._book: AttemptFiles | None = None
        self._late: LateRecords | None = None
        """Takes records once the session is closed."""
        self._certificate: Certificate | None = None
        if launched().rank == 0:
            self._book = AttemptFiles(self.config, self.output_dir, total_steps, self.summary, database)
            self.session_id = self._book.session.session_id
            self.attempt = self._book.attempt
            self._progress = self._book.progress
            self._put: Callable[[Entry], None] = self._begin_and_put
            self._reached_step = self._book.reached_step
        else:
            members = session_file.read(self.directory / session_file.NAME) or {"session_id": "", "attempts": []}
            self.session_id = members["session_id"]
            self.attempt = len(members["attempts"])
            self._progress = Progress(total_steps=total_steps)
            self._put = _discard
        self._announce(ATTEMPT, from_step=None)
        atexit.register(self._close_at_exit)
        _open.add(self)

    def resume_at(self, step: int) -> None:
        """Say that training goes on with `step` finished steps: rows of earlier attempts from there on are superseded.

        What is then done again is compared with what they recorded: see `certificate`. For loops that load their own
        checkpoints; with `state=` it happens by itself.
        """
        self.current_step = self._first_step = self._resumed_at = step = argument.whole("resume_at(step)", step)
        self._progress.go_to(step)
        self._at_step(step)
        self._announce(ATTEMPT, from_step=step)
        if self._book is not None and step > 0:
            self._book.compare(step)

    @property
    def certificate(self) -> Certificate | None:
        """How the steps that a resumed attempt did again compare with the recorded ones; None until that is known."""
        return self._certificate if self._book is None else self._book.certificate

    def update_metrics(
        self,
        step: int,
        loss: MetricValue = None,
        loss_components: Mapping[str, MetricValue] | None = None,
        learning_rate: MetricValue = None,
        samples_processed: int | None = None,
        tokens_processed: int | None = None,
        **metrics: MetricValue,
    ) -> None:
        """Record what step `step` (from 0 on) measured. Costs a few microseconds; nothing is formatted or written here.

        A row of an earlier step, such as an evaluation that was long in coming, is kept with that step and moves
        nothing back. A loop that does go back says so: `resume_at`.

        Numbers may be tensors. One on a CUDA device is not waited for: it is read when a whole window of them has come
        to the host. What is None is left out.

        Args:
            loss_components: by name; recorded under this name.
            samples_processed, tokens_processed: counted from the beginning of the training.
            metrics: further metrics, such as `grad_norm`; also lists and dicts of numbers and texts.

        Raises:
            ConfigInvalid: a tensor of more than one element, or a name that the file itself uses.
        """
        now = time.monotonic()
        if not RESERVED.isdisjoint(metrics):
            raise ConfigInvalid(
                f"A metric cannot be called {', '.join(sorted(RESERVED & metrics.keys()))}.",
                hint="Give it another name.",
            )
        if type(step) is not int or step < 0:
            step = argument.step(step)
        members: dict[str, Any] = {}
        if loss is not None:
            members["loss"] = loss
        if loss_components is not None:
            members["loss_components"] = loss_components
        if learning_rate is not None:
            members["learning_rate"] = learning_rate
        if samples_processed is not None:
            members["samples_processed"] = samples_processed
        if tokens_processed is not None:
            members["tokens_processed"] = tokens_processed
        if metrics:
            members |= metrics
        for name, each in members.items():
            if type(each) not in _PLAIN:
                members[name] = self._take(name, each)
        if self._extra is not None and (self._counts_rows or step >= self.current_step):
            members |= self._extra  # a late row of a step before is not what it belongs to
            self._extra = None
        is_late = step + self._counts_rows < self.current_step  # of an earlier step, such as an evaluation of it
        if not is_late and (step < self._reached_step) is not self._is_replaying:
            self._at_step(step)
        working = None
        if self._counts_rows and not is_late:
            self.current_step = step + 1
            working = self._stopwatch.working(now)
        self._put((step, time.time(), working, members))
        if self._window is not None:
            self._window.move_if_due(now)

    def attach(self, members: dict[str, Any]) -> None:
        """Add members to the next row, or to a row of their own if the running step records none."""
        self._extra = members if self._extra is None else {**self._extra, **members}

    def record_inputs(
        self,
        *,
        lengths: Iterable[int] | None = None,
        tokens: Any = None,
        labels: Any = None,
        logprobs: Any = None,
    ) -> None:
        """Count what the running step is fed with, for the drift panels; a window of 100 steps is one line on disk.

        Args:
            lengths: of each sample, in tokens or characters.
            tokens: token ids, any shape. A tensor on a device is copied to the host, which waits for it.
            labels: class labels, any shape.
            logprobs: the teacher's natural log probabilities of the target tokens, any shape.
        """
        closed = self._inputs.add(self.current_step, lengths=lengths, tokens=tokens, labels=labels, logprobs=logprobs)
        if self._late is not None:
            closed = self._inputs.close()
        if closed is not None:
            self._record_event(INPUTS, **closed)

    def record_checkpoint(
        self,
        path: str | os.PathLike[str],
        *,
        step: int | None = None,
        tags: str | Sequence[str] = (),
        metrics: Mapping[str, float] | None = None,
        position: Any = None,
    ) -> Recoverable:
        """Register a file or directory that the user saved. It is never touched, moved or deleted.

        Args:
            step: finished steps; the current ones by default.
            tags: to find it by, such as `"before-anneal"`.
            position: where in the data it was, as JSON.
        """
        entry = catalog.describe(
            location.path("record_checkpoint(path)", path),
            self.output_dir,
            step=self.current_step if step is None else argument.step(step),
            tags=argument.texts("record_checkpoint(tags=)", tags),
            metrics=argument.numbers("record_checkpoint(metrics=)", metrics),
            position=argument.json_value("record_checkpoint(position=)", position),
        )
        if entry.size_bytes is None:
            log.warning("%s was registered as a checkpoint and is not there", path)
        self._record_event(REGISTERED, step=entry.step, checkpoint=asdict(entry))
        if self._book is not None:
            with self._in(Phase.CHECKPOINT):
                self._book.register(entry)
            if self._put == self._book.recorder.put:
                self._put = self._put_after_save
        elif self._late is not None:
            self._late.register(entry)
        return entry

    def recovery_checkpoint(self, tag: str | None = None) -> Path | None:
        """Return the newest checkpoint that is there, own or registered, with `tag` if one is given.

        Of the branch that the run continues: what lies behind a step that was resumed at is abandoned.
        """
        if self._book is not None:
            self._book.recorder.flush(sync=False)
        resumed = None if self._resumed_at is None else (self.attempt, self._resumed_at)
        return catalog.newest(self.output_dir, tag, resumed=resumed)

    def summary(self) -> Summary:
        """Return step, percent, loss and its trend, throughput, ETA, failures, and where the time went."""
        recorder = None if self._book is None else self._book.recorder
        if recorder is None:
            return self._summarise(())
        with recorder.lock:
            recorder.take_in()
            return self._summarise((recorder.trouble,) if recorder.trouble else ())

    def flush(self) -> None:
        """Return once everything recorded so far is on the medium."""
        if self._book is not None:
            self._book.recorder.flush(sync=True)

    def close(self) -> None:
        """Write what is left and let go of the directory. A second call, or one in a forked child, does nothing.

        What is recorded afterwards opens the files again for that record.
        """
        self._close("closed")

    def _close_at_exit(self) -> None:
        """The process ends and nobody has closed it."""
        self.close()

    def _close(self, end: str) -> None:
        book = self._book
        if book is None:
            return
        atexit.unregister(self._close_at_exit)
        _open.discard(self)
        self._attach_alone()
        if (window := self._inputs.close()) is not None:
            book.recorder.put((None, time.time(), None, {"kind": INPUTS, **window}))
        late = LateRecords(self.output_dir, self._progress)
        with late.lock:
            self._late, self._put, self._book, self._window = late, late.put, None, None
            book.close(end)
        self._certificate = book.certificate

    def _forget(self) -> None:
        """In a forked child: records are the parent's alone."""
        self._book, self._late, self._put = None, None, _discard

    def _before_silence(self) -> None:
        if self._window is not None:
            self._window.move()

    def _summarise(self, problems: tuple[str, ...]) -> Summary:
        now = time.monotonic()
        return self._progress.summary(
            self._stopwatch.seconds(now),
            failures=self._outages.failures,
            recoveries=self._outages.recoveries,
            down_seconds=self._outages.down_seconds,
            is_down=self._outages.since is not None,
            last_failure=None if self._outages.last is None else self._outages.last.error,
            problems=problems,
        )

    def _record_event(self, kind: str, /, **members: Any) -> None:
        self._put((None, time.time(), None, {"kind": kind, **members}))

    def _announce(self, kind: str, /, **members: Any) -> None:
        """Record an event that alone is no reason to write: it goes before the first that is."""
        if self._book is not None:
            self._book.recorder.put((None, time.time(), None, {"kind": kind, **members}))

    def _begin_and_put(self, entry: Entry) -> None:
        """Take the first record: from here on the attempt is written down."""
        self._begin()
        if self._book is not None:
            self._book.recorder.put(entry)

    def _begin(self) -> None:
        """The first step, record or save: until then a start has changed nothing but the lock."""
        if self._book is not None:
            self._book.begin()
            if self._put == self._begin_and_put:
                self._put = self._book.recorder.put

    def _put_after_save(self, entry: Entry) -> None:
        """Record, and bring the first row after a save to the medium at once: a resume is compared with it."""
        if self._book is not None:
            self._book.recorder.put(entry)
            if entry[0] is not None and entry[3] is not None:
                self._put = self._book.recorder.put
                self._book.recorder.urge()

    def _end_step(self) -> None:
        """Note that `current_step` steps are finished, where no row says so."""
        step = self.current_step - 1
        self._at_step(step)
        self._put((step, time.time(), self._stopwatch.working(time.monotonic()), None))

    def _attach_alone(self) -> None:
        """Give what was attached and went with no row a row of its own."""
        if self._extra is not None and self._book is not None:
            self._book.recorder.put((max(0, self.current_step - 1), time.time(), None, self._extra))
        self._extra = None

    def _take(self, name: str, each: Any) -> Any:
        if isinstance(each, Mapping):
            return {str(part): self._take(f"{name}.{part}", item) for part, item in each.items()}
        if not values.is_on_cuda(each):
            return values.read(name, each)
        values.require_one(name, each)
        if self._book is None:
            return None if self._late is None else values.read(name, each)
        if self._window is None:
            from trainhooks.pytorch.window import DeviceWindow

            self._window = self._book.recorder.device = DeviceWindow()
        return self._window.hold(name, each)


def _discard(entry: Any) -> None:
    """What a rank that does not write, or a closed tracker, does with records."""


_open: weakref.WeakSet[ProgressTracker] = weakref.WeakSet()


def _forget_all() -> None:
    for tracker in list(_open):
        tracker._forget()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_all)
