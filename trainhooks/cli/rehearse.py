"""`trainhooks rehearse`: kill and resume a short run of a command before the long one."""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from trainhooks.cli.options import json_option, print_json
from trainhooks.core import rehearsal
from trainhooks.core.rehearsal import VARIABLE, Outcome, Plan, Result
from trainhooks.host.command import Commands, TimeIsUp
from trainhooks.storage import metrics, session
from trainhooks.storage.rehearsal import KILLED

EXIT_DIFFERS = 1
EXIT_UNKNOWN = 3
EXIT_TIME = 124
_NOT_FOUND = 127


class _Ended(Exception):
    """The rehearsal ends before it can compare."""

    def __init__(self, why: str, code: int) -> None:
        super().__init__(why)
        self.code = code


@click.command("rehearse", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--steps", type=click.IntRange(min=3), default=8, show_default=True, help="Steps of each run.")
@click.option(
    "--kill-at",
    type=click.IntRange(min=2),
    default=5,
    show_default=True,
    help="Kill after so many finished steps; a checkpoint is saved two steps earlier, at step 1 at the earliest.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=1),
    default=600.0,
    show_default=True,
    help="Time limit of the whole rehearsal, in seconds.",
)
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with space for two runs and their checkpoints.  [the system's temporary folder]",
)
@json_option
@click.argument("command", nargs=-1, required=True, metavar="-- CMD")
def command(
    command: tuple[str, ...], steps: int, kill_at: int, time_limit: float, scratch: Path | None, as_json: bool
) -> None:
    """Run CMD for a few steps, kill it (SIGKILL), resume it, and compare its steps with those of an uninterrupted run.

    The session of CMD (a loop with state=, loader() and steps(), or Hugging Face's Trainer with TrainhooksCallback)
    writes to a scratch folder; its own output directory is neither read nor written. Files that the script itself
    writes go where they always go. Code after its loop does not run. Each run makes its own calls to a teacher, unless
    kdproxy answers them.

    Exit code 0: exact. 1: a step differs. 3: the runs could not be compared. 124: time limit reached. If CMD itself
    fails: its exit code.
    """
    if kill_at >= steps:
        raise click.UsageError("--kill-at must be less than --steps: the steps after the kill are compared.")
    folder = Path(tempfile.mkdtemp(prefix="trainhooks-rehearsal-", dir=scratch))
    try:
        outcome = _rehearse(command, folder, steps=steps, kill_at=kill_at, time_limit=time_limit)
        code = {Result.EXACT: 0, Result.DIFFERS: EXIT_DIFFERS, Result.UNKNOWN: EXIT_UNKNOWN}[outcome.result]
    except _Ended as ended:
        outcome, code = Outcome(result=Result.UNKNOWN, why=str(ended)), ended.code
    if outcome.result is Result.DIFFERS:
        outcome = replace(outcome, note=f"{outcome.note}. " * bool(outcome.note) + f"Both runs are kept in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        print_json({"exit_code": code, **asdict(outcome)})
    else:
        click.echo(str(outcome))
    sys.exit(code)


def _rehearse(command: Sequence[str], folder: Path, *, steps: int, kill_at: int, time_limit: float) -> Outcome:
    save_at = max(1, kill_at - 2)
    killed, whole = folder / "killed", folder / "whole"
    commands = Commands(limit_seconds=time_limit)
    click.echo(
        f"rehearsal in {folder}: {kill_at} steps and SIGKILL, {steps - save_at} steps resumed from the checkpoint at"
        f" step {save_at}, {steps} steps without a kill. Each of the three makes its own calls to a teacher, unless"
        " kdproxy answers them.",
        err=True,
    )
    plan = Plan(directory=str(killed), steps=steps, save_at=save_at, kill_at=kill_at)
    code = _start(commands, command, plan)
    if not (killed / KILLED).exists():
        raise _unmet(killed, code, f"before {kill_at} steps were finished")
    if len(_attempts(killed)) < 2:  # else a launcher has already restarted it
        code = _start(commands, command, plan)
        if code:
            raise _unmet(killed, code, "when it should have resumed")
    code = _start(commands, command, replace(plan, directory=str(whole), kill_at=None))
    if code:
        raise _unmet(whole, code, "in the uninterrupted run")
    certificate = _attempts(killed)[-1].get("certificate")
    return rehearsal.judge(metrics.read_lines(_run_in(killed)), metrics.read_lines(_run_in(whole)), certificate)


def _start(commands: Commands, command: Sequence[str], plan: Plan) -> int:
    Path(plan.directory).mkdir(exist_ok=True)
    try:
        code = commands.run(command, {VARIABLE: plan.encode()})
    except FileNotFoundError:
        raise _Ended(f"command not found: {command[0]}", _NOT_FOUND) from None
    except OSError as error:
        raise _Ended(f"{command[0]} cannot be started ({error.strerror})", _NOT_FOUND - 1) from None
    except TimeIsUp:
        raise _Ended("time limit reached (--time-limit)", EXIT_TIME) from None
    if commands.signalled:
        raise _Ended(f"signal {commands.signalled} ended the command", 128 + commands.signalled)
    return code


def _unmet(directory: Path, code: int, when: str) -> _Ended:
    if code:
        return _Ended(f"the command ended with exit code {code} {when}", code)
    if not _attempts(directory):
        return _Ended("the command opened no trainhooks session with state= and steps()", EXIT_UNKNOWN)
    return _Ended(f"the command ended {when}", EXIT_UNKNOWN)


def _run_in(directory: Path) -> Path:
    """Return the run in a plan's directory; of several, the one with the most rows."""
    found = sorted(directory.glob("*/progress"), key=lambda each: (each / metrics.NAME).stat().st_size)
    return found[-1].parent


def _attempts(directory: Path) -> list[dict[str, Any]]:
    if not [*directory.glob(f"*/progress/{metrics.NAME}")]:
        return []
    members = session.read(_run_in(directory) / "progress" / session.NAME)
    return [] if members is None else members["attempts"]
