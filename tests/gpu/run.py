"""Run the tests of this directory without pytest: python3 tests/gpu/run.py [WORD in the test's name]."""

import importlib
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]


def main() -> int:
    import without_orjson  # noqa: F401

    word = sys.argv[1] if len(sys.argv) > 1 else ""
    failed = passed = 0
    for path in sorted(HERE.glob("test_*.py")):
        try:
            module = importlib.import_module(path.stem)
        except ModuleNotFoundError as error:
            if error.name != "pytest":
                raise
            print(f"LEFT OUT {path.stem}: it needs pytest")
            continue
        for name, test in list(vars(module).items()):
            if not name.startswith("test_") or word not in name:
                continue
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as scratch:
                try:
                    test(Path(scratch))
                except Exception:
                    failed += 1
                    traceback.print_exc()
                    verdict = "FAILED"
                else:
                    passed += 1
                    verdict = "passed"
            print(f"{verdict} {path.stem}::{name} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
