"""What one attempt records, opened together: the files' row sink, the clock, the teacher's calls, the input window."""

from __future__ import annotations

import atexit
import operator
import os
from collections.abc import Callable
from typing import Any

from trainhooks.core.certificate import Certificate
from trainhooks.core.config import validate
from trainhooks.core.lineage import LineageEncoder
from trainhooks.core.progress import Progress, Summary
from trainhooks.core.row import ATTEMPT
from trainhooks.host.launch import launched
from trainhooks.session.attempt_files import AttemptFiles
from trainhooks.session.inputs import INPUTS, InputWindow
from trainhooks.session.loop_state import LoopState
from trainhooks.session.row_sink import RowSink
from trainhooks.session.row_values import RowValues
from trainhooks.session.teacher_calls import TeacherCalls
from trainhooks.session.timekeeping import Timekeeping
from trainhooks.storage import location
from trainhooks.storage import session as session_file


class Records:
    """The parts that a tracker and a training session record with. Under torchrun only rank 0 writes.

    Args:
        config, output_dir, total_steps, database: see `ProgressTracker`, which lists the errors too.
        at_exit: called when the process ends and `close` has not been called.
    """

    def __init__(
        self,
        config: Any,
        output_dir: str | os.PathLike[str],
        total_steps: int,
        *,
        database: str | os.PathLike[str] | bool,
        at_exit: Callable[[], None],
    ) -> None:
        location.flag_or_path("database=", database)
        self.config = validate(config, total_steps)
        self.total_steps = total_steps = operator.index(total_steps)
        self.output_dir = location.directory(output_dir)  # absolute: the loop may change its working directory
        self.directory = self.output_dir / "progress"
        self.values = RowValues()
        self.clock = Timekeeping(self.values.send)
        self.loop = LoopState()
        self.inputs = InputWindow()
        self.lineage = LineageEncoder()
        self._at_exit = at_exit
        self._certificate: Certificate | None = None
        """Of a session that is closed."""
        files: AttemptFiles | None = None
        if launched().rank == 0:
            files = AttemptFiles(self.config, self.output_dir, total_steps, self.summary, database)
        self.sink = RowSink(files)
        self.calls = TeacherCalls(self.sink)
        if files is not None:
            self.session_id, self.attempt, self.progress = files.session.session_id, files.attempt, files.progress
            self.clock.reached_step = files.reached_step
        else:
            members = session_file.read(self.directory / session_file.NAME) or {"session_id": "", "attempts": []}
            self.session_id, self.attempt = members["session_id"], len(members["attempts"])
            self.progress = Progress(total_steps=total_steps)
        self.sink.announce(ATTEMPT, from_step=None)
        atexit.register(at_exit)

    def resume_at(self, step: int) -> None:
        """Continue with `step` finished steps: see `ProgressTracker.resume_at`."""
        self.loop.resume_at(step)
        self.progress.go_to(step)
        self.clock.at_step(step)
        self.sink.announce(ATTEMPT, from_step=step)
        if self.sink.files is not None and step > 0:
            self.sink.files.compare(step)

    def set_finish_reason(self, reason: str | None) -> None:
        """Say why the training is done before its last step; None: it is not."""
        self.loop.finish_reason = reason
        self.progress.is_finished = reason is not None

    def add_attached(self) -> None:
        """Give what was attached, and no row took, a row of its own."""
        if (attached := self.loop.take_attached()) is not None:
            self.sink.add(*attached)

    @property
    def certificate(self) -> Certificate | None:
        """See `ProgressTracker.certificate`."""
        return self._certificate if self.sink.files is None else self.sink.files.certificate

    def summary(self) -> Summary:
        """See `ProgressTracker.summary`."""
        if self.sink.files is None:
            return self._summarise(())
        recorder = self.sink.files.recorder
        with recorder.lock:
            recorder.take_in()
            return self._summarise((recorder.trouble,) if recorder.trouble else ())

    def _summarise(self, problems: tuple[str, ...]) -> Summary:
        outages = self.calls.outages
        return self.progress.summary(
            self.clock.seconds(),
            failures=outages.failures,
            recoveries=outages.recoveries,
            down_seconds=outages.down_seconds,
            is_down=outages.since is not None,
            last_failure=None if outages.last is None else outages.last.error,
            problems=problems,
        )

    def close(self, end: str) -> None:
        """Write what is left and release the directory; `end` says how the attempt ended. Once is enough."""
        files = self.sink.files
        if files is None:
            return
        atexit.unregister(self._at_exit)
        self.add_attached()
        if (window := self.inputs.close()) is not None:
            self.sink.announce(INPUTS, **window)
        self.values.window = None
        self.sink.close(end, output_dir=self.output_dir, progress=self.progress)
        self._certificate = files.certificate
