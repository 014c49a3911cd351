"""What a training did, on disk: metrics, time, checkpoints, answers, failures. Without torch."""

from __future__ import annotations

import logging
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
from trainhooks.core.lineage import LINEAGE
from trainhooks.core.metric_value import MetricValue
from trainhooks.core.origin import Id, Origin
from trainhooks.core.progress import Summary
from trainhooks.core.row import RESERVED
from trainhooks.core.timing import Phase
from trainhooks.errors import ConfigInvalid
from trainhooks.session.inputs import INPUTS
from trainhooks.session.records import Records
from trainhooks.session.step_origin import origin_of
from trainhooks.session.value import PLAIN
from trainhooks.storage import catalog, location, rehearsal
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
        rehearsal.refuse("A loop of records alone, or a trainer's callback,", output_dir)
        self._records = Records(config, output_dir, total_steps, database=database, at_exit=self._close_at_exit)

    def __repr__(self) -> str:
        steps = f"step {self.current_step} of {self.total_steps}"
        return f"<{type(self).__name__} {self.output_dir}: {steps}, {self._records.sink.state}>"

    @property
    def config(self) -> dict[str, Any]:
        """The run's configuration as it is stored."""
        return self._records.config

    @property
    def output_dir(self) -> Path:
        """The run's directory, absolute."""
        return self._records.output_dir

    @property
    def directory(self) -> Path:
        """`progress/` in it, with the files of the records."""
        return self._records.directory

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self._records.total_steps

    @property
    def session_id(self) -> str:
        """The run's name in its files; the same in every attempt."""
        return self._records.session_id

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1 on."""
        return self._records.attempt

    @property
    def current_step(self) -> int:
        """Steps finished so far, over all attempts."""
        return self._records.loop.finished

    @current_step.setter
    def current_step(self, step: int) -> None:
        self._records.loop.finished = step

    def resume_at(self, step: int) -> None:
        """Continue with `step` finished steps: rows of earlier attempts from that step on are superseded.

        The steps done again are compared with what those attempts recorded: see `certificate`. For loops that load
        their own checkpoints; with `state=` the session calls it.
        """
        self._records.resume_at(argument.whole("resume_at(step)", step))

    @property
    def certificate(self) -> Certificate | None:
        """How the steps that a resumed attempt did again compare with the recorded ones; None until that is known."""
        return self._records.certificate

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
        records = self._records
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
                members[name] = records.values.read(name, each, records.sink)
        loop, clock = records.loop, records.clock
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
        records.sink.put((step, time.time(), working, members))
        if records.values.window is not None:
            records.values.window.move_if_due(now)

    def attach(self, members: dict[str, Any]) -> None:
        """Add members to the next row, or to a row of their own if the running step records none."""
        self._records.loop.attach(members)

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
        self.attach({LINEAGE: self._records.lineage.members(origin)})

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
        closed = self._records.inputs.add(
            self.current_step, lengths=lengths, tokens=tokens, labels=labels, logprobs=logprobs
        )
        if self._records.sink.late is not None:
            closed = self._records.inputs.close()
        if closed is not None:
            self._records.sink.event(INPUTS, **closed)

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
        self._records.sink.event(REGISTERED, step=entry.step, checkpoint=asdict(entry))
        with self._records.clock.counting(Phase.CHECKPOINT):
            self._records.sink.register(entry)
        return entry

    def recovery_checkpoint(self, tag: str | None = None) -> Path | None:
        """Return the newest checkpoint that exists, own or registered, with `tag` if one is given.

        Of the branch that the run continues: what lies behind a step that was resumed at is abandoned.
        """
        self._records.sink.flush(sync=False)
        resumed = None if self._records.loop.resumed_at is None else (self.attempt, self._records.loop.resumed_at)
        return catalog.newest(self.output_dir, tag, resumed=resumed)

    # -- the teacher's API ------------------------------------------------------------------------------------

    def record_api_response(
        self, prompt: str, response: str, *, model: str, system: str | None = None, source: str | None = None
    ) -> int | None:
        """Keep a teacher's answer durably, and end an outage. `kdproxy warm` takes the file.

        Returns:
            Which answer to this prompt it is, from 0 on; None where it could not be written (a warning says so).
        """
        return self._records.calls.record(prompt, response, model=model, system=system, source=source)

    def find_api_response(self, prompt: str, *, model: str, system: str | None = None, ordinal: int = 0) -> str | None:
        """Return an answer that was recorded for exactly this prompt, in this attempt or an earlier one, or None."""
        return self._records.calls.find(prompt, model=model, system=system, ordinal=ordinal)

    def record_connection_failure(self, error: BaseException | str) -> None:
        """Note that a call failed; an outage lasts until an answer or a recovery is recorded."""
        self._records.calls.failed(error)

    def record_connection_recovery(self) -> None:
        """Note that calls succeed again. Without an outage nothing happens."""
        self._records.calls.recovered()

    # -- time -------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Stop the clock: the time until `unpause` counts as paused. A second call changes nothing."""
        self._records.clock.pause()

    def unpause(self) -> None:
        """Start the clock again. Without a pause this does nothing."""
        self._records.clock.unpause()

    def resume(self) -> None:
        """Deprecated name of `unpause`."""
        warnings.warn("resume() is deprecated: call unpause().", DeprecationWarning, stacklevel=2)
        self._records.clock.unpause()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of this block."""
        with self._records.clock.counting(Phase.PAUSED):
            yield

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Count the time of this block as evaluation, not as steps."""
        with self._records.clock.counting(Phase.EVALUATION):
            yield

    @contextmanager
    def checkpointing(self) -> Iterator[None]:
        """Count the time of this block, in which the user saves a checkpoint, as saving."""
        with self._records.clock.counting(Phase.CHECKPOINT):
            yield

    # -- reading and ending -----------------------------------------------------------------------------------

    def summary(self) -> Summary:
        """Return step, percent, loss and its trend, throughput, ETA, failures, and where the time went."""
        return self._records.summary()

    def flush(self) -> None:
        """Return once everything recorded so far is on the medium."""
        self._records.sink.flush()

    def close(self) -> None:
        """Write what is left and release the directory. A second call, or one in a forked child, does nothing.

        What is recorded afterwards opens the files again for that record.
        """
        self._close("closed")

    def _close_at_exit(self) -> None:
        """The process ends and nobody has closed the session."""
        self.close()

    def _close(self, end: str) -> None:
        self._records.close(end)
