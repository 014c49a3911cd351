"""What a training did, on disk: metrics, time, checkpoints, answers, failures. Without torch."""

from __future__ import annotations

import atexit
import logging
import operator
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainhooks.core import argument
from trainhooks.core.certificate import Certificate
from trainhooks.core.config import validate
from trainhooks.core.lineage import LINEAGE, Teller
from trainhooks.core.metric_value import MetricValue
from trainhooks.core.origin import Id, Origin
from trainhooks.core.progress import Progress, Summary
from trainhooks.core.row import ATTEMPT, RESERVED
from trainhooks.core.timing import Phase
from trainhooks.errors import ConfigInvalid
from trainhooks.host.launch import launched
from trainhooks.session.attempt_files import AttemptFiles
from trainhooks.session.inputs import INPUTS, InputWindow
from trainhooks.session.loop_state import LoopState
from trainhooks.session.row_sink import RowSink
from trainhooks.session.row_values import RowValues
from trainhooks.session.step_origin import origin_of
from trainhooks.session.teacher_calls import TeacherCalls
from trainhooks.session.timekeeping import Timekeeping
from trainhooks.session.value import PLAIN
from trainhooks.storage import catalog, location, rehearsal
from trainhooks.storage import session as session_file
from trainhooks.storage.branch import REGISTERED
from trainhooks.storage.catalog import Recoverable

log = logging.getLogger("trainhooks")


class ProgressTracker:
    """Records a training, from its first step or resumed.

    Under torchrun only rank 0 writes; the other ranks accept records and drop them. Every method may be called from
    any thread.

    Args:
        config: of the run; a mapping or an object with attributes. Stored, credentials starred.
        output_dir: its `progress/` holds the files. One process at a time writes there.
        total_steps: steps of the whole training.
        database: the experiment database that lists the run; True: `experiments.db` in the folder that output_dir lies
            in (docs/formats/registry.md has the exceptions), False: none.

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
        self._values = RowValues()
        self._clock = Timekeeping(self._values.send)
        self._loop = LoopState()
        self._inputs = InputWindow()
        self._lineage = Teller()
        self.output_dir = location.directory(output_dir)  # absolute: the loop may change its working directory
        self.directory = self.output_dir / "progress"
        self.total_steps = total_steps
        self._pid = os.getpid()
        self._certificate: Certificate | None = None
        """Of a session that is closed."""
        files = self._open_files(database) if launched().rank == 0 else None
        self._sink = RowSink(files)
        self._calls = TeacherCalls(self._sink)
        if files is not None:
            self.session_id, self.attempt, self._progress = files.session.session_id, files.attempt, files.progress
            self._clock.reached_step = files.reached_step
        else:
            members = session_file.read(self.directory / session_file.NAME) or {"session_id": "", "attempts": []}
            self.session_id, self.attempt = members["session_id"], len(members["attempts"])
            self._progress = Progress(total_steps=total_steps)
        self._sink.announce(ATTEMPT, from_step=None)
        atexit.register(self._close_at_exit)

    def _open_files(self, database: str | os.PathLike[str] | bool) -> AttemptFiles:
        return AttemptFiles(self.config, self.output_dir, self.total_steps, self.summary, database)

    def __repr__(self) -> str:
        steps = f"step {self.current_step} of {self.total_steps}"
        return f"<{type(self).__name__} {self.output_dir}: {steps}, {self._sink.state}>"

    @property
    def current_step(self) -> int:
        """Steps finished so far, over all attempts."""
        return self._loop.finished

    @current_step.setter
    def current_step(self, step: int) -> None:
        self._loop.finished = step

    def resume_at(self, step: int) -> None:
        """Continue with `step` finished steps: rows of earlier attempts from that step on are superseded.

        The steps done again are compared with what those attempts recorded: see `certificate`. For loops that load
        their own checkpoints; with `state=` the session calls it.
        """
        step = argument.whole("resume_at(step)", step)
        self._loop.resume_at(step)
        self._progress.go_to(step)
        self._clock.at_step(step)
        self._sink.announce(ATTEMPT, from_step=step)
        if self._sink.files is not None and step > 0:
            self._sink.files.compare(step)

    @property
    def certificate(self) -> Certificate | None:
        """How the steps that a resumed attempt did again compare with the recorded ones; None until that is known."""
        return self._certificate if self._sink.files is None else self._sink.files.certificate

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
            if type(each) not in PLAIN:
                members[name] = self._values.read(name, each, self._sink)
        loop, clock = self._loop, self._clock
        if loop.attached is not None and (loop.counts_rows or step >= loop.finished):
            members |= loop.attached  # a late row of an earlier step is not what it belongs to
            loop.attached = None
        is_late = step + loop.counts_rows < loop.finished  # of an earlier step, such as an evaluation of it
        if not is_late and (step < clock.reached_step) is not clock.is_replaying:
            clock.at_step(step)
        working = None
        if loop.counts_rows and not is_late:
            loop.finished = step + 1
            working = clock.stopwatch.working(now)
        self._sink.put((step, time.time(), working, members))
        if self._values.window is not None:
            self._values.window.move_if_due(now)

    def attach(self, members: dict[str, Any]) -> None:
        """Add members to the next row, or to a row of their own if the running step records none."""
        self._loop.attach(members)

    def record_lineage(
        self,
        ids: Sequence[Id] | None,
        keys: Sequence[Iterable[tuple[str, int | None]]] | None = None,
        *,
        epoch: int | None = None,
    ) -> None:
        """Record which samples the running step is made of, in the next row: call it before `update_metrics`.

        `steps()` does it itself.

        Args:
            ids: of each sample; None: not known.
            keys: of each sample, the stored answers that it was made of: (key, ordinal or None), as
                `trainhooks.lineage.noting` collects them; None: not known.

        Raises:
            ConfigInvalid: something is no key, or ids and keys are not equally many.
        """
        self.record_origin(origin_of(ids, keys, epoch))

    def record_origin(self, origin: Origin) -> None:
        """As `record_lineage`, of an origin that was read from batches."""
        self.attach({LINEAGE: self._lineage.members(origin)})

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
        if self._sink.late is not None:
            closed = self._inputs.close()
        if closed is not None:
            self._sink.event(INPUTS, **closed)

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
        self._sink.event(REGISTERED, step=entry.step, checkpoint=asdict(entry))
        with self._clock.counting(Phase.CHECKPOINT):
            self._sink.register(entry)
        return entry

    def recovery_checkpoint(self, tag: str | None = None) -> Path | None:
        """Return the newest checkpoint that exists, own or registered, with `tag` if one is given.

        Of the branch that the run continues: what lies behind a step that was resumed at is abandoned.
        """
        self._sink.flush(sync=False)
        resumed = None if self._loop.resumed_at is None else (self.attempt, self._loop.resumed_at)
        return catalog.newest(self.output_dir, tag, resumed=resumed)

    # -- the teacher's API ------------------------------------------------------------------------------------

    def record_api_response(
        self, prompt: str, response: str, *, model: str, system: str | None = None, source: str | None = None
    ) -> int | None:
        """Keep a teacher's answer durably, and end an outage. `kdproxy warm` takes the file.

        Returns:
            Which answer to this prompt it is, from 0 on; None where it could not be written (a warning says so).
        """
        return self._calls.record(prompt, response, model=model, system=system, source=source)

    def find_api_response(self, prompt: str, *, model: str, system: str | None = None, ordinal: int = 0) -> str | None:
        """Return an answer that was recorded for exactly this prompt, in this attempt or an earlier one, or None."""
        return self._calls.find(prompt, model=model, system=system, ordinal=ordinal)

    def record_connection_failure(self, error: BaseException | str) -> None:
        """Note that a call failed; an outage lasts until an answer or a recovery is recorded."""
        self._calls.failed(error)

    def record_connection_recovery(self) -> None:
        """Note that calls succeed again. Without an outage nothing happens."""
        self._calls.recovered()

    # -- time -------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Stop the clock: the time until `unpause` counts as paused. A second call changes nothing."""
        self._clock.pause()

    def unpause(self) -> None:
        """Start the clock again. Without a pause this does nothing."""
        self._clock.unpause()

    def resume(self) -> None:
        """Deprecated name of `unpause`."""
        warnings.warn("resume() is deprecated: call unpause().", DeprecationWarning, stacklevel=2)
        self._clock.unpause()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of this block."""
        with self._clock.counting(Phase.PAUSED):
            yield

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count the time of this block as evaluation, not as steps."""
        with self._clock.counting(Phase.EVALUATION):
            yield

    @contextmanager
    def checkpointing(self) -> Iterator[None]:
        """Count the time of this block, in which the user saves a checkpoint, as saving."""
        with self._clock.counting(Phase.CHECKPOINT):
            yield

    # -- reading and ending -----------------------------------------------------------------------------------

    def summary(self) -> Summary:
        """Return step, percent, loss and its trend, throughput, ETA, failures, and where the time went."""
        if self._sink.files is None:
            return self._summarise(())
        recorder = self._sink.files.recorder
        with recorder.lock:
            recorder.take_in()
            return self._summarise((recorder.trouble,) if recorder.trouble else ())

    def flush(self) -> None:
        """Return once everything recorded so far is on the medium."""
        self._sink.flush()

    def close(self) -> None:
        """Write what is left and release the directory. A second call, or one in a forked child, does nothing.

        What is recorded afterwards opens the files again for that record.
        """
        self._close("closed")

    def _close_at_exit(self) -> None:
        """The process ends and nobody has closed the session."""
        self.close()

    def _close(self, end: str) -> None:
        files = self._sink.files
        if files is None:
            return
        atexit.unregister(self._close_at_exit)
        if (attached := self._loop.take_attached()) is not None:
            self._sink.add(*attached)
        if (window := self._inputs.close()) is not None:
            self._sink.announce(INPUTS, **window)
        self._values.window = None
        self._sink.close(end, output_dir=self.output_dir, progress=self._progress)
        self._certificate = files.certificate

    def _summarise(self, problems: tuple[str, ...]) -> Summary:
        outages = self._calls.outages
        return self._progress.summary(
            self._clock.seconds(),
            failures=outages.failures,
            recoveries=outages.recoveries,
            down_seconds=outages.down_seconds,
            is_down=outages.since is not None,
            last_failure=None if outages.last is None else outages.last.error,
            problems=problems,
        )
