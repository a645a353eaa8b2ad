"""The corpus of hostile files: nothing runs, nothing takes the memory, each is told what it is."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile import corpus

MEASURE = Path(__file__).parent / "hostile" / "measured.py"
MOST = 250  # MiB, libraries included
HDF5 = importlib.util.find_spec("h5py") is not None

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of memory are set as on Unix")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = [name for name, (maker, _) in corpus.FILES.items() if HDF5 or "hdf5" not in maker.__qualname__]
    return corpus.write_all(tmp_path_factory.mktemp("hostile"), names)


@pytest.fixture(scope="module")
def answers(written: dict[str, Path]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(MEASURE)], input=json.dumps({n: str(p) for n, p in written.items()}),
        cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", corpus.FILES)
def test_a_hostile_file_is_told_what_it_is(
    name: str, written: dict[str, Path], answers: dict[str, Any]
) -> None:
    if name not in written:
        pytest.skip("h5py is not installed")
    answer, expected = answers[name], corpus.FILES[name][1]
    assert any(expected in message for message in answer["messages"]), answer
    assert answer["peak"] < MOST, answer


def test_nothing_of_the_corpus_ran(written: dict[str, Path], answers: dict[str, Any]) -> None:
    folder = next(iter(written.values())).parents[1]
    assert answers.keys() == written.keys()
    assert [str(path) for path in folder.rglob(corpus.CANARY)] == []
