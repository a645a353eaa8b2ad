"""The compiled pass as machine code: built by numba once, kept in a file, loaded without numba.

Importing numba and unpacking its own cache takes half a second of processor time, llvmlite and our
code a tenth of that. The file lies beside this one or, where that folder is read-only, in the
user's cache. Its name is a digest of the source, the versions and the processor, and it begins
with a digest of the rest.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

Kernel = Callable[..., int]  # arguments as in compiled.py; releases the interpreter's lock

_SOURCES = ("compiled.py", "fused.py", "layout.py")
_HERE = Path(__file__).parent
_KINDS = {"single": 4, "brain": 3, "half": 3, "byte": 3, "word": 3}  # and pointers at the end
_DIGEST = 32  # bytes of one


@cache
def kernels(build: bool = True) -> dict[str, Kernel] | None:
    """The compiled functions by kind.

    None where they are not kept yet and ``build`` is false, without numba, or where there is no
    folder to keep them in.
    """
    if sys.maxsize < 1 << 32 or not hasattr(os, "pread"):
        return None
    with suppress(ImportError, OSError, RuntimeError):
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        host = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
        machine = llvm.Target.from_default_triple().create_target_machine(
            *host, opt=3, codemodel="jitdefault", jit=True
        )
        name = _name((llvm.llvm_version_info, machine.triple, *host))
        code = _kept(name) or (_built(name, llvm, machine) if build else None)
        return _loaded(llvm, machine, code) if code else None
    return None


def _loaded(llvm: Any, machine: Any, code: bytes) -> dict[str, Kernel]:
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    found: dict[str, Kernel] = {}
    for kind, pointers in _KINDS.items():
        place, number = ctypes.c_void_p, ctypes.c_int64
        kernel = ctypes.CFUNCTYPE(
            number, ctypes.c_int32, *[number] * 3, *[place] * 2, *[number] * 3, *[place] * pointers
        )(engine.get_function_address(f"analyzer_{kind}"))
        kernel.engine = engine  # type: ignore[attr-defined]  # which owns the code
        found[kind] = kernel
    return found


def _name(facts: tuple[object, ...]) -> str:
    sources = b"".join((_HERE / name).read_bytes() for name in _SOURCES)
    return f"pass-{sha256(sources + repr(facts).encode()).hexdigest()[:32]}.o"


def _kept(name: str) -> bytes | None:
    for folder in _folders():
        with suppress(OSError):
            kept = (folder / name).read_bytes()
            if sha256(kept[_DIGEST:]).digest() == kept[:_DIGEST]:
                return kept[_DIGEST:]
    return None


def _built(name: str, llvm: Any, machine: Any) -> bytes:
    """Built and kept. Raises OSError, ImportError, RuntimeError."""
    folder = _writable_folder()
    from analyzer.checkpoints.onepass.compiled import object_code

    code = object_code(llvm, machine)
    unfinished = folder / f"{name}.{os.getpid()}"
    unfinished.write_bytes(sha256(code).digest() + code)
    unfinished.replace(folder / name)
    return code


def _folders() -> tuple[Path, ...]:
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return _HERE / "__pycache__", Path(user) / "training-log-analyzer"


def _writable_folder() -> Path:
    for folder in _folders():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise OSError("no folder to keep compiled code in")
