"""Forks one `kdproxy serve` after the other, with what it has imported: 0.1 s a start instead of 1 s.

JSON lines on stdin and stdout: {"argv": [...], "plan": {...}, "output": FILE, "environment": {...}} -> {"pid": N};
{"poll": N} -> {"code": N or null}, negative for a signal. Ends when stdin does.
"""

import json
import os
import sys
from typing import Any

import kdproxy.app
import kdproxy.cli.serve
import kdproxy.ops.job
import kdproxy.web.run_api  # noqa: F401
from kdproxy.cli.main import main
from tests.e2e.crash.bugs import BUGS
from tests.e2e.crash.points import Plan, Points


def serve() -> dict[str, Any]:
    """Answer requests; returns only in a child, with what it has to run."""
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        if "argv" in request:
            pid = os.fork()
            if pid == 0:
                return request
            answer: dict[str, Any] = {"pid": pid}
        else:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = {"code": os.waitstatus_to_exitcode(status) if pid else None}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    os._exit(0)


def become(request: dict[str, Any]) -> None:
    """Turn this fork into `kdproxy serve`."""
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(request["environment"])
    plan = Plan(**request["plan"])
    if plan.bug is not None:
        BUGS[plan.bug]()
    Points(plan).install()
    sys.argv = ["kdproxy", *request["argv"]]
    main()


if __name__ == "__main__":
    become(serve())
