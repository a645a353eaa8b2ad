"""What loading a pickle the usual way would have run, judged from what it imports and calls.

``critical`` runs commands or code; ``warning`` carries code, or reaches for files, processes or the
network. Classes of the user's own project are neither: training scripts pickle them every day.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from analyzer.checkpoints.pickle_machine import Reference, Use

Level = Literal["critical", "warning"]

# modules of which any function may run a command or code
_RUNNING = frozenset(
    ("os", "posix", "nt", "subprocess", "sys", "runpy", "pty", "importlib", "ctypes", "_ctypes", "codeop", "popen2",
     "pip", "marshal", "pdb", "bdb", "timeit", "cProfile", "doctest", "_posixsubprocess", "pkgutil", "zipimport",
     "ensurepip", "venv", "distutils", "setuptools", "idlelib", "lib2to3", "_osx_support", "_aix_support", "pydoc",
     "pickle", "_pickle", "shelve", "nose", "pytest", "IPython", "cffi")
)  # fmt: skip
# modules that reach for files, processes or the network, or carry code to be run later
_REACHING = frozenset(
    ("shutil", "tempfile", "glob", "socket", "urllib", "http", "ftplib", "smtplib", "webbrowser", "requests",
     "httpx", "aiohttp", "telnetlib", "poplib", "imaplib", "nntplib", "ssl", "fileinput", "linecache", "sqlite3",
     "zipfile", "tarfile", "mmap", "fcntl", "asyncio", "multiprocessing", "concurrent", "threading", "_thread",
     "signal", "atexit", "gc", "paramiko", "xmlrpc", "dill", "cloudpickle")
)  # fmt: skip
_RUNNING_BUILTINS = frozenset(("eval", "exec", "execfile", "compile", "breakpoint", "__import__", "apply"))
_REACHING_BUILTINS = frozenset(("open", "input", "file", "globals", "locals", "vars", "setattr", "delattr"))
# functions of otherwise harmless modules; projects call their own modules code, test or trace
_RUNNING_CALLS = frozenset(
    Reference(module, name)
    for module, names in {
        "torch": ("load",), "torch.serialization": ("load",), "torch.hub": ("load", "load_state_dict_from_url"),
        "torch.utils.collect_env": ("run", "run_and_read_all"), "torch.utils._config_module": ("ConfigModule",),
        "torch.jit.unsupported_tensor_ops": ("execWrapper",), "torch.fx.graph_module": ("_exec_with_source",),
        "numpy": ("load",), "numpy.testing": ("runstring",), "numpy.testing._private.utils": ("runstring",),
        "joblib": ("load",), "joblib.numpy_pickle": ("load",), "pandas": ("read_pickle", "eval"),
        "types": ("CodeType", "FunctionType"), "functools": ("reduce",), "uuid": ("_get_command_stdout",),
        "operator": ("methodcaller", "attrgetter"), "logging.config": ("dictConfig", "listen", "fileConfig"),
        "code": ("interact", "InteractiveInterpreter", "InteractiveConsole", "compile_command"),
        "commands": ("getoutput", "getstatusoutput"), "profile": ("run", "runctx"), "trace": ("Trace",),
        "site": ("main", "addsitedir"), "imp": ("load_source", "load_module"), "platform": ("popen",),
    }.items()
    for name in names
)  # fmt: skip
_ORDINARY = frozenset(
    ("torch", "collections", "numpy", "builtins", "_codecs", "copyreg", "datetime", "pathlib", "argparse",
     "__torch__")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Harm:
    use: Use
    level: Level


def harmful(uses: Iterable[Use]) -> list[Harm]:
    """Those uses that a normal load would not have been harmless with, the worst first."""
    found = [Harm(use, level) for use in uses if (level := _level(use.reference))]
    return sorted(found, key=lambda harm: (harm.level, harm.use.offset))


def ordinary(reference: Reference) -> bool:
    """Whether calling it is what every checkpoint does."""
    return reference.module.split(".")[0] in _ORDINARY


def _level(reference: Reference) -> Level | None:
    top, first = reference.module.split(".")[0], reference.name.split(".")[0]
    if top == "builtins":
        if first in _RUNNING_BUILTINS or "__" in reference.name:
            return "critical"
        return "warning" if first in _REACHING_BUILTINS else None
    if top in _RUNNING or reference in _RUNNING_CALLS:
        return "critical"
    if any(part in _RUNNING for part in reference.name.split(".")[:-1]):
        return "critical"  # a module reached through another's attributes
    registered = top == "copyreg" and reference.name.startswith("extension_")  # whatever that may be
    return "warning" if top in _REACHING or registered else None


def warning(harms: Sequence[Harm]) -> str:
    """One line for the user: what would have run."""
    names = list(dict.fromkeys(str(harm.use.reference)[:80] for harm in harms))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"unpickling this file normally would import {', '.join(names[:3])}{more} "
        f"(byte {harms[0].use.offset}); nothing was run. Do not load it with pickle or torch.load"
    )


def harms_text(harms: Sequence[Harm], level: Level) -> str:
    """``os.system called at byte 34; …``: each name once, as called rather than as imported."""
    told: dict[Reference, Use] = {}
    for harm in harms:
        if harm.level == level:
            known = told.get(harm.use.reference)
            if known is None or (harm.use.called and not known.called):
                told[harm.use.reference] = harm.use
    return "; ".join(f"{_shown(use)} (byte {use.offset}, {use.opcode})" for use in list(told.values())[:20])


def _shown(use: Use) -> str:
    name = str(use.reference)[:80].replace(";", ",")
    return f"{name} called" if use.called else f"{name} imported"
