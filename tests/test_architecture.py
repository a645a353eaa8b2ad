"""Who imports whom, what is never called, and what is not loaded before it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import events

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "analyzer"
MODULES = sorted(PACKAGE.rglob("*.py"))

# The rooms of docs/architecture.md, and what each may import of ours besides its own room.
READING = {"model", "errors", "ingest", "checkpoints"}
MAY_IMPORT: dict[str, set[str]] = {
    "model": set(),
    "errors": set(),
    "_version": set(),
    "hyperparameters": {"model", "errors"},
    "ingest": {"model", "errors", "checkpoints.pickles"},
    "checkpoints": {"model", "errors"},
    "roles": {"model", "errors"},
    "commandline": {"errors", "roles", "report.escape"},
    "discover": READING,
    "remote": READING | {"discover"},
    "assemble": READING | {"discover", "roles"},
    "reading": READING | {"discover", "roles", "assemble", "remote"},
    "features": {"model", "errors", "hyperparameters", "checkpoints"},
    "rulebook": {"model", "errors", "features", "hyperparameters"},
    "insight": {"model", "errors", "hyperparameters"},
    "activations": {"model", "errors", "checkpoints"},
    "report": {"model", "errors", "_version"},
}
ORDERING = {  # they know everything
    "pipeline", "cli", "__init__", "__main__", "auditing", "callbacks", "memory", "notebook",
    "tensorboard_plugin",
}  # fmt: skip

FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads",
    "pickle.Unpickler", "marshal.loads", "shelve.open", "torch.load", "numpy.lib.format.read_array",
    "joblib.load", "dill.load", "dill.loads", "cloudpickle.load", "pandas.read_pickle", "yaml.load",
    "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "subprocess.run", "subprocess.Popen",
    "subprocess.call", "subprocess.check_output",
}  # fmt: skip
# Starts a process of our own, with a command line that no file has a say in.
STARTING = {"auditing.supervise": {"subprocess.Popen"}}
HEAVY = {
    "joblib",
    "llvmlite",
    "numba",
    "onnx",
    "onnxruntime",
    "pyarrow",
    "dask",
    "distributed",
    "ray",
    "torch",
    "pandas",
    "scipy",
    "matplotlib",
    "tensorboard",
    "tensorflow",
    "keras",
    "lightning",
    "h5py",
}


def name_of(module: Path) -> str:
    parts = module.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def tree_of(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"), str(module))


def own_imports(module: Path) -> Iterator[tuple[str, int]]:
    """Modules of ours that a module imports, wherever it does, without the package's name."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}:{node.lineno}: relative import"
            base = str(node.module)
            deeper = [alias.name for alias in node.names if is_module(f"{base}.{alias.name}")]
            found = [f"{base}.{name}" for name in deeper] or [base]
        else:
            continue
        for name in found:
            if name == "analyzer" or name.startswith("analyzer."):
                yield name.removeprefix("analyzer").lstrip(".") or "__init__", node.lineno


def is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_every_room_is_in_the_plan() -> None:
    rooms = {name_of(module).split(".")[0] for module in MODULES}
    assert rooms <= set(MAY_IMPORT) | ORDERING


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_imports_go_one_way(module: Path) -> None:
    room = name_of(module).split(".")[0]
    if room in ORDERING:
        return
    allowed = MAY_IMPORT[room] | {room}
    for imported, line in own_imports(module):
        fine = any(imported == a or imported.startswith(f"{a}.") for a in allowed)
        assert fine, f"{module}:{line}: {room} must not import {imported}"


def test_an_import_against_the_direction_would_be_seen(tmp_path: Path) -> None:
    module = tmp_path / "x.py"
    module.write_text("def f():\n    from analyzer.report import html\n    from analyzer import features\n")
    assert dict(own_imports(module)) == {"report.html": 2, "features": 3}


def calls(module: Path) -> Iterator[tuple[str, int]]:
    """The dotted names that a module calls, import aliases undone, each with its line."""
    tree = tree_of(module)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            yield names.get(first, first) + dot + rest, node.lineno


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_nothing_from_a_file_is_ever_executed(module: Path) -> None:
    forbidden = FORBIDDEN - STARTING.get(name_of(module), set())
    assert [f"{module}:{line}: {name}" for name, line in calls(module) if name in forbidden] == []


def test_forbidden_calls_would_be_seen_under_any_name(tmp_path: Path) -> None:
    module = tmp_path / "x.py"
    module.write_text("import torch as t\nfrom pickle import loads as l\nt.load(1)\nl(2)\neval('3')\n")
    assert {name for name, _ in calls(module) if name in FORBIDDEN} == {"torch.load", "pickle.loads", "eval"}


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_numpy_never_unpickles(module: Path) -> None:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False, module


def loaded_by(arguments: list[str], folder: Path) -> set[str]:
    """The heavy packages in ``sys.modules`` after a run of the command line."""
    code = (
        "import json, sys\n"
        "from analyzer.cli import cli\n"
        "try:\n    cli(json.loads(sys.argv[1]), prog_name='analyze')\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('\\n' + json.dumps([m for m in {sorted(HEAVY)} if m in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["rules", "list"]], ids=" ".join)
def test_help_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert loaded_by(arguments, tmp_path) == set()


@pytest.mark.parametrize("form", ["terminal", "json"])
def test_a_run_of_event_files_loads_nothing_heavy(form: str, tmp_path: Path) -> None:
    events(tmp_path / "exp", tags=("train/loss", "val/loss", "lr"))
    assert loaded_by(["exp", "--report", form], tmp_path) == set()


def test_the_package_itself_loads_nothing_but_itself(tmp_path: Path) -> None:
    code = "import sys, analyzer; print(sorted(m for m in sys.modules if m in ('numpy', 'yaml', 'click')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"


def test_reading_event_files_loads_what_reads_them_and_no_more(tmp_path: Path) -> None:
    events(tmp_path / "exp", tags=("train/loss", "val/loss", "lr"))
    code = (
        "import sys, analyzer\nassert analyzer.read('exp')\n"
        "late = ('yaml', 'analyzer.model.judged', 'analyzer.checkpoints.entries', 'analyzer.rulebook',"
        " 'analyzer.features', 'analyzer.remote.archives', 'analyzer.ingest.delimited')\n"
        "print([name for name in late if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
