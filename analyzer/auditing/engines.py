"""Where the work of an audit is done: processes of this machine or, by way of joblib, a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from itertools import chain, count, islice
from typing import Any, TypeVar

from analyzer.auditing.supervise import Crew, examine_all
from analyzer.auditing.tasks import Outcome, Settings, Task
from analyzer.errors import AnalyzerError

Batch = TypeVar("Batch", bound=Sequence[Any])
NAMES = ("local", "dask", "ray")
CONNECT_SECONDS = 20
AHEAD = 3  # batches for each process that are ready to be taken
ROUND = 8  # batches for each process, where an engine hands over nothing before all are done
FAILURES = 3  # of the engine in a row, with nothing done between them
PACKAGES = {"dask": "training-log-analyzer[dask]", "ray": "training-log-analyzer[ray]"}


class EngineError(AnalyzerError):
    """The workers cannot be had, or keep dying."""


@dataclass(frozen=True, slots=True)
class Engine:
    """``jobs`` counts processes of this machine; a cluster has as many as it has."""

    name: str = "local"
    jobs: int = 1
    address: str = ""


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def outcomes(
    batches: Iterable[Batch], load: Callable[[Batch], Sequence[Task]], crew: Crew, engine: Engine
) -> Iterator[Outcome]:
    """What came of the tasks of all batches, each once, in the order they are done.

    ``load`` makes the tasks of a batch when it is its turn. ``crew`` does them, or a cluster does as it
    would, by the same settings. Where workers die, what they had not
    handed over is done again, in ever smaller batches. Raises EngineError when that does not help.
    """
    if engine.name == "local":
        try:
            yield from crew.outcomes(chain.from_iterable(map(load, batches)))
        except RuntimeError as error:
            raise EngineError(str(error)) from error
        return
    source, numbers, failures = iter(batches), count(), 0
    pending: dict[int, Batch] = {}
    again: list[Batch] = []

    def numbered() -> Iterator[tuple[int, Sequence[Task]]]:
        for batch in chain(again, source):
            number = next(numbers)
            pending[number] = batch
            yield number, load(batch)

    with _workers(engine) as parallel:
        while True:
            try:
                for number, done in parallel(numbered(), crew.settings):
                    del pending[number]
                    failures = 0
                    yield from done
                return
            except Exception as error:  # each engine has errors of its own
                failures += 1
                if failures > FAILURES:
                    raise EngineError(f"the workers of engine {engine.name} keep failing: {error}") from error
                again = [half for batch in pending.values() for half in _halves(batch)]
                pending.clear()


def _halves(batch: Batch) -> list[Batch]:
    middle = len(batch) // 2
    return [batch] if not middle else [batch[:middle], batch[middle:]]  # type: ignore[list-item]


Done = Iterator[tuple[int, list[Outcome]]]
Parallel = Callable[[Iterator[tuple[int, Sequence[Task]]], Settings], Done]


def _work(number: int, tasks: Sequence[Task], settings: Settings) -> tuple[int, list[Outcome]]:
    return number, examine_all(tasks, settings)


class _workers(AbstractContextManager[Parallel]):
    """The engine, as a function that has numbered tasks done."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.cluster: AbstractContextManager[Any] = nullcontext()

    def __enter__(self) -> Parallel:
        try:
            self.cluster = _cluster(self.engine)
            self.cluster.__enter__()
        except ImportError as error:
            package = PACKAGES[self.engine.name]
            raise EngineError(
                f"engine {self.engine.name}: {error.name} is not installed: pip install '{package}'"
            ) from None
        except (OSError, ConnectionError, ValueError) as error:
            raise EngineError(
                f"engine {self.engine.name} at {self.engine.address or 'no address'}: {error}"
            ) from None
        return self._parallel

    def _parallel(self, numbered: Iterator[tuple[int, Sequence[Task]]], settings: Settings) -> Done:
        import joblib

        calls = (joblib.delayed(_work)(number, tasks, settings) for number, tasks in numbered)
        with joblib.parallel_config(backend=self.engine.name):
            jobs = joblib.effective_n_jobs(-1)
            if self.engine.name == "ray":  # it hands over nothing before all is done: in rounds
                while some := list(islice(calls, ROUND * jobs)):
                    yield from joblib.Parallel(n_jobs=jobs, batch_size=1)(some)
            else:
                how = {"return_as": "generator_unordered", "pre_dispatch": f"{AHEAD}*n_jobs", "batch_size": 1}
                yield from joblib.Parallel(n_jobs=jobs, **how)(calls)

    def __exit__(self, *error: Any) -> None:
        self.cluster.__exit__(*error)


def _cluster(engine: Engine) -> AbstractContextManager[Any]:
    """The connection to a cluster; raises ImportError and OSError."""
    import_module("joblib")
    if engine.name == "dask":
        client: AbstractContextManager[Any] = import_module("dask.distributed").Client(
            engine.address or None, timeout=CONNECT_SECONDS
        )
        return client
    import_module("ray.util.joblib").register_ray()
    context: AbstractContextManager[Any] = import_module("ray").init(
        address=engine.address or None, log_to_driver=False, logging_level="ERROR"
    )
    return context
