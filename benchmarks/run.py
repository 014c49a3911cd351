"""Measure kdproxy against the baselines in the same run: `python benchmarks/run.py [--quick] [NAME...]`.

The table says what was aimed at and what came out; a full run leaves its figures in benchmarks/results/.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import report
from figure import Figure, Verdict
from measure import MEASUREMENTS, Bench
from process import SERVER_CORE, BenchmarkFailed


def main() -> int:
    options = _parser().parse_args()
    if unknown := [name for name in options.names if name not in MEASUREMENTS]:
        sys.exit(f"no measurement is named {', '.join(unknown)}; there are: {', '.join(MEASUREMENTS)}")
    names = options.names or list(MEASUREMENTS)
    if SERVER_CORE is None:
        print("server and load share the cores here: take the figures with a grain of salt", file=sys.stderr)
    figures: list[Figure] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="kdproxy-bench-", dir=options.scratch) as scratch:
        bench = Bench(Path(scratch), options.quick)
        for name in names:
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                figures += MEASUREMENTS[name](bench)
            except BenchmarkFailed as error:
                failed.append(name)
                print(f"{name}: no figure: {error}", file=sys.stderr)
        report.table(figures)
        is_whole = not options.quick and not options.names and not failed
        if figures and (is_whole or options.output):
            saved = report.save(figures, Path(scratch), is_quick=options.quick, path=options.output)
            print(f"saved in {saved}", file=sys.stderr)
    return 1 if failed or any(figure.verdict is Verdict.MISSED for figure in figures) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--quick", action="store_true", help="shorter windows, 10^4 entries: to see that it runs")
    parser.add_argument("--output", type=Path, help="write the figures there, a quick or partial run's too")
    parser.add_argument(
        "--scratch", type=Path, default=_scratch(), help="directory on the disk to measure; default: %(default)s"
    )
    return parser


def _scratch() -> Path:
    # /tmp lies in memory on many machines: a sync costs nothing there and would flatter every miss.
    kept = Path("/var/tmp")
    return kept if os.access(kept, os.W_OK) else Path(tempfile.gettempdir())


if __name__ == "__main__":
    sys.exit(main())
