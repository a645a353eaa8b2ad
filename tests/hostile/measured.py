"""Opens and reads files, each in a process of its own with little memory, and says what came of it.

``python measured.py`` takes a JSON object of paths by name on stdin and writes a JSON object of
answers: the messages, the kind of the error, the peak of the resident memory in MiB, the seconds.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

ADDRESS_SPACE = 1_500 << 20  # bytes: what a mistake may take before it fails, libraries included
CPU_SECONDS = 120


def told(path: Path) -> dict[str, object]:
    """What is said of one file; ``kind`` is that of the error, or "" where it was opened."""
    from analyzer.checkpoints import open_checkpoint
    from analyzer.checkpoints.statistics import layer_stats
    from analyzer.errors import IngestError

    try:
        checkpoint = open_checkpoint(path)
        messages = [problem.message for problem in checkpoint.problems]
        messages += [str(checkpoint.metadata.get(f"pickle_{level}", "")) for level in ("critical", "warning")]
        messages.append(str(checkpoint.metadata.get("pickle_calls", "")))
        measured = len(list(layer_stats(checkpoint)))
    except IngestError as error:
        return {"kind": error.kind, "messages": [error.message], "tensors": 0}
    return {"kind": "", "messages": messages, "tensors": measured}


def in_a_process(path: Path) -> dict[str, object]:
    reading, writing = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
            os.write(writing, json.dumps(told(path)).encode()[:60_000])
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status, usage = os.wait4(child, 0)
    result = (
        json.loads(answer) if status == 0 else {"kind": f"died with {status}", "messages": [], "tensors": 0}
    )
    return {**result, "peak": usage.ru_maxrss / 1024, "seconds": time.monotonic() - began}


def main() -> None:
    from analyzer.checkpoints import containers

    containers()  # imported once, before the forks
    paths = json.load(sys.stdin)
    answers = {name: in_a_process(Path(path)) for name, path in paths.items()}
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
