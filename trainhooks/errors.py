"""Errors that a user of trainhooks can meet: each has a stable code and a hint (what to do now)."""


class TrainhooksError(Exception):
    """Something went wrong that the user can act on.

    Args:
        message: what happened, in one sentence.
        hint: what to do now.
        code: stable snake_case identifier.
    """

    default_code = "trainhooks_error"

    def __init__(self, message: str, *, hint: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code

    def __str__(self) -> str:
        return f"{self.message} Hint: {self.hint}"


class ConfigInvalid(TrainhooksError):
    """The configuration or an argument is invalid; every problem is listed at once."""

    default_code = "config_invalid"


class ExtraMissing(TrainhooksError, ImportError):
    """A required package is not installed; the hint names the extra that installs it."""

    default_code = "extra_missing"


class SessionBusy(TrainhooksError):
    """Another process writes to this output directory."""

    default_code = "session_busy"


class StateUnsupported(TrainhooksError):
    """The training state holds something that cannot be saved without pickle, or does not fit what was saved."""

    default_code = "state_unsupported"


class CheckpointInvalid(TrainhooksError):
    """A checkpoint is damaged, incomplete, or of a version that this release does not know."""

    default_code = "checkpoint_invalid"


class CheckpointFailed(TrainhooksError):
    """A checkpoint could not be written; the earlier ones are whole."""

    default_code = "checkpoint_failed"


class RankLost(TrainhooksError):
    """Another process of this training ended or does not respond, so this one cannot continue."""

    default_code = "rank_lost"


class PositionInvalid(TrainhooksError):
    """A saved position does not match the data that it is applied to."""

    default_code = "position_invalid"


class SessionInvalid(TrainhooksError):
    """session.json is damaged, or of a version that this release does not know."""

    default_code = "session_invalid"


class DirectoryUnusable(TrainhooksError):
    """The output directory cannot be created or written."""

    default_code = "directory_unusable"


class NoRun(TrainhooksError):
    """There is no recorded training at this place."""

    default_code = "no_run"


class DriftBlocked(TrainhooksError):
    """The configuration, model, data or tokenizer has changed since the run that would be resumed."""

    default_code = "drift_blocked"


class RunUnavailable(TrainhooksError):
    """The kdproxy that the training's samples come from is away, or refuses."""

    default_code = "run_unavailable"


class SamplesNotRestored(TrainhooksError):
    """The teacher's samples could not be put back to the checkpoint, so the resume would get others."""

    default_code = "samples_not_restored"
