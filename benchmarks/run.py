"""Measure kdproxy against the baselines in the same run: `python benchmarks/run.py [--quick] [--only NAME ...]`.

The table says what was aimed at and what came out. A whole run leaves its figures in benchmarks/results/, and writes
them after each measurement: `--resume` continues one that was broken off.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import report
from figure import Verdict
from measure import MEASUREMENTS, Bench
from process import SERVER_CORE, BenchmarkFailed


def main() -> int:
    options = _parser().parse_args()
    names = options.only or list(MEASUREMENTS)
    output = options.output or (None if options.quick or options.only else report.default_path())
    if options.resume and output is None:
        sys.exit("--resume continues a file: a whole run has one, another needs --output")
    figures = report.load(output, is_quick=options.quick) if options.resume and output is not None else []
    done = {figure.measurement for figure in figures}
    if SERVER_CORE is None:
        print("server and load share the cores here: take the figures with a grain of salt", file=sys.stderr)
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="kdproxy-bench-", dir=options.scratch) as scratch:
        bench = Bench(Path(scratch), options.quick)
        for name in names:
            if name in done:
                print(f"{name}: is there", file=sys.stderr)
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                figures += [replace(figure, measurement=name) for figure in MEASUREMENTS[name](bench)]
            except BenchmarkFailed as error:
                failed.append(name)
                print(f"{name}: no figure: {error}", file=sys.stderr)
                continue
            if output is not None:
                report.save(figures, output, Path(scratch), is_quick=options.quick, seconds=bench.elapsed)
    report.table(figures)
    if output is not None:
        print(f"saved in {output}", file=sys.stderr)
    return 1 if failed or any(figure.verdict is Verdict.MISSED for figure in figures) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--quick", action="store_true", help="shorter windows, 10^4 entries: to see that it runs")
    parser.add_argument("--output", type=Path, help="write the figures there, a quick or partial run's too")
    parser.add_argument("--resume", action="store_true", help="leave out what the file has of this commit")
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
