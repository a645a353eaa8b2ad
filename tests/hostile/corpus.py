"""Every hostile file of the corpus, and what must be said of it.

``FILES`` maps a name to a maker ``(folder) -> path`` and to words of the answer: of the error, of a
problem of the checkpoint, or of its list of what would have run. ``python corpus.py FOLDER`` writes
them all.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

if __package__:
    from hostile import hostile_files as forge
    from hostile import hostile_pickles as pickles
else:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from hostile import hostile_files as forge
    from hostile import hostile_pickles as pickles

Maker = Callable[[Path], Path]
CANARY = "canary"  # appears in the folder if anything was run


def canary(folder: Path) -> Path:
    return folder / CANARY


def torch_of(make: Callable[[Path], bytes]) -> Maker:
    """A PyTorch archive around a pickle."""
    return lambda folder: forge.torch_zip(folder / "c.pt", make(canary(folder)))


def legacy_of(make: Callable[[Path], bytes]) -> Maker:
    """The pickle itself, under a checkpoint's name."""

    def write(folder: Path) -> Path:
        (folder / "c.pth").write_bytes(make(canary(folder)))
        return folder / "c.pth"

    return write


def bare(data: bytes) -> Maker:
    return torch_of(lambda _: data)


def system(place: Path) -> bytes:
    """``os.system('touch …')`` as REDUCE makes it, to be put anywhere in a pickle."""
    return b"cos\nsystem\n(S'touch " + str(place).encode() + b"'\ntR"


# --- pickles -------------------------------------------------------------------------------------------


def by_extension(place: Path) -> bytes:
    """EXT1 stands for whatever the loading process registered under a number."""
    return b"\x80\x02\x82\x07(S'touch " + str(place).encode() + b"'\ntR."


def by_persistent_id(place: Path) -> bytes:
    """A persistent id that is itself a call."""
    return b"\x80\x02}X\x01\x00\x00\x00w" + system(place) + b"Qs."


def by_storage_class(place: Path) -> bytes:
    return forge.torch_pickle(storage=b"cos\nsystem\n")


def by_stack_global(place: Path) -> bytes:
    """The name is put together on the stack, not written in one piece."""
    return b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c" + _short(f"touch {place}") + b"\x85R."


def by_nested_attribute(place: Path) -> bytes:
    """A dotted name reaches a module through another's attributes."""
    return b"\x80\x04\x8c\x08tempfile\x8c\x0a_os.system\x93\x8c" + _short(f"touch {place}") + b"\x85R."


def by_load_within(place: Path) -> bytes:
    """pickle.loads of a pickle in bytes: nothing harmful is named outside."""
    inner = b"cos\nsystem\n(S'touch " + str(place).encode() + b"'\ntR."
    return b"\x80\x03c_pickle\nloads\nC" + bytes([len(inner)]) + inner + b"\x85R."


def by_torch_load(place: Path) -> bytes:
    return b"\x80\x02ctorch\nload\n(X\x08\x00\x00\x00other.pttR."


def by_setitems_on_globals(place: Path) -> bytes:
    return b"\x80\x02cbuiltins\nglobals\n)RX\x01\x00\x00\x00xNs."


def _short(text: str) -> bytes:
    return bytes([len(text.encode())]) + text.encode()


def persistent_of_nonsense(place: Path) -> bytes:
    return b"\x80\x02}X\x01\x00\x00\x00w(X\x07\x00\x00\x00storageNNNNtQs."


def shared_keys_nested(levels: int) -> bytes:
    """A long key used at every level: the full path would be its length times the levels, squared."""
    key = b"X" + struct.pack("<I", 1 << 20) + b"k" * (1 << 20) + b"q\x00"
    return b"\x80\x02}" + key + b"}" + b"h\x00}" * levels + b"h\x00K\x01s" + b"s" * (levels + 1) + b"."


def one_tensor_many_times(count: int) -> bytes:
    """A list of the same tensor again and again: two bytes for each."""
    one = forge.torch_pickle()
    tensor = one[one.index(b"ctorch._utils") : -2]
    return b"\x80\x02](" + tensor + b"q\x01" + b"h\x01" * count + b"e."


def expanding_strings(count: int) -> bytes:
    """Two-letter strings: four bytes in the file, fifty in memory."""
    letters = [bytes([97 + i // 26 % 26, 97 + i % 26]) for i in range(676)]
    return b"\x80\x04](" + b"".join(b"\x8c\x02" + letters[i % 676] for i in range(count)) + b"e."


# --- zip -----------------------------------------------------------------------------------------------


def nested_archives(folder: Path) -> Path:
    """An archive in an archive in an archive, as a storage."""
    inner = b"x" * 1_000
    for _ in range(12):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data.pkl", inner * 3)
        inner = buffer.getvalue()
    return forge.torch_zip(
        folder / "c.pt", forge.torch_pickle(elements=1 << 20, shape=b"J\x00\x00\x10\x00\x85"), data=inner
    )


def two_members_of_one_name(folder: Path) -> Path:
    path = folder / "c.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", forge.torch_pickle())
        archive.writestr("archive/data/0", bytes(16))
        archive.writestr("archive/data/1", bytes(16))
    path.write_bytes(path.read_bytes().replace(b"archive/data/1", b"archive/data/0"))
    return path


def huge_member_count(folder: Path) -> Path:
    path = forge.torch_zip(folder / "c.pt", forge.torch_pickle())
    raw = bytearray(path.read_bytes())
    at = raw.rfind(b"PK\x05\x06")
    struct.pack_into("<HH", raw, at + 8, 0xFFFF, 0xFFFF)
    path.write_bytes(raw)
    return path


def huge_directory_64(folder: Path) -> Path:
    path = folder / "c.pt"
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2**40, 2**40, 2**60, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 4, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(b"PK\x03\x04" + record + locator + end)
    return path


def cut_with_forged_descriptor(folder: Path) -> Path:
    """No directory, and descriptors that claim whatever they like."""
    name = b"archive/data.pkl"
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 8, 0, 0, 0, 0, 0, 0, len(name), 0)
    forged = struct.pack("<4sL2Q", b"PK\x07\x08", 0, 2**62, 2**62) * 2_000
    (folder / "c.pt").write_bytes(local + name + forged)
    return folder / "c.pt"


# --- safetensors -----------------------------------------------------------------------------------------


def header(data: bytes, length: int | None = None, behind: bytes = bytes(8)) -> Maker:
    return lambda folder: forge.safetensors(folder / "m.safetensors", data, behind, length)


def tensors(*described: tuple[str, str, object, object]) -> bytes:
    """A header written out, so that a name may come twice."""
    parts = (
        f"{json.dumps(name)}:{json.dumps({'dtype': dtype, 'shape': shape, 'data_offsets': offsets})}"
        for name, dtype, shape, offsets in described
    )
    return ("{" + ",".join(parts) + "}").encode()


# --- HDF5 ----------------------------------------------------------------------------------------------


def hdf5(fill: Callable[[object, Path], None]) -> Maker:
    def write(folder: Path) -> Path:
        import h5py

        (folder / "secret.bin").write_bytes(b"s" * 64)
        with h5py.File(folder / "m.h5", "w") as file:
            file["own"] = np.zeros(2)
            fill(file, folder)
        return folder / "m.h5"

    return write


def _external_link(file: object, folder: Path) -> None:
    import h5py

    file["link"] = h5py.ExternalLink("/etc/passwd", "/")  # type: ignore[index]


def _soft_cycle(file: object, folder: Path) -> None:
    import h5py

    file["loop"] = h5py.SoftLink("/loop")  # type: ignore[index]


def _hard_cycle(file: object, folder: Path) -> None:
    group = file.create_group("a/b")  # type: ignore[attr-defined]
    group["again"] = file["a"]  # type: ignore[index]
    file["link"] = __import__("h5py").SoftLink("/nowhere")  # type: ignore[index]


def _external_storage(file: object, folder: Path) -> None:
    file.create_dataset("outside", (64,), "u1", external=[("secret.bin", 0, 64)])  # type: ignore[attr-defined]


def _virtual(file: object, folder: Path) -> None:
    import h5py

    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("virtual", layout)  # type: ignore[attr-defined]


def _huge_chunks(file: object, folder: Path) -> None:
    shape = (1 << 20, 1 << 9)
    file.create_dataset("wide", shape, "f8", chunks=(1 << 19, 1 << 9), compression="gzip")  # type: ignore[attr-defined]


def _never_written(file: object, folder: Path) -> None:
    file.create_dataset("bomb", (2**40,), "f8", chunks=(1024,), compression="gzip")  # type: ignore[attr-defined]


# --- other containers ------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes, length: int | None = None) -> bytes:
    return varint(number << 3 | 2) + varint(len(content) if length is None else length) + content


def onnx(*initializers: bytes, whole: bytes | None = None) -> Maker:
    def write(folder: Path) -> Path:
        graph = b"".join(field(5, tensor) for tensor in initializers)
        (folder / "m.onnx").write_bytes(b"\x08\x08" + (field(7, graph) if whole is None else whole))
        return folder / "m.onnx"

    return write


def external(location: str, **more: str) -> bytes:
    """A TensorProto whose four floats lie elsewhere."""
    facts = {"location": location, **more}
    pairs = b"".join(field(13, field(1, k.encode()) + field(2, v.encode())) for k, v in facts.items())
    return b"\x08\x04\x10\x01" + field(8, b"w") + pairs + b"\x70\x01"


def gguf(tensor_count: int, setting_count: int, rest: bytes = b"") -> Maker:
    def write(folder: Path) -> Path:
        head = b"GGUF" + struct.pack("<IQQ", 3, tensor_count, setting_count)
        (folder / "m.gguf").write_bytes(head + rest)
        return folder / "m.gguf"

    return write


def gguf_text(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def npz_of_objects(folder: Path) -> Path:
    array = np.array([pickles._Calls(__import__("os").system, f"touch '{canary(folder)}'")], dtype=object)
    np.savez(folder / "weights.npz", kernel=array)
    return folder / "weights.npz"


def npz_with_header(text: str) -> Maker:
    def write(folder: Path) -> Path:
        raw = text.encode().ljust(118) + b"\n"
        array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + bytes(16)
        with zipfile.ZipFile(folder / "weights.npz", "w") as archive:
            archive.writestr("kernel.npy", array)
        return folder / "weights.npz"

    return write


def index_of(weights: object) -> Maker:
    def write(folder: Path) -> Path:
        path = folder / "model.safetensors.index.json"
        path.write_text(json.dumps({"metadata": {}, "weight_map": weights}))
        return path

    return write


def metadata_of(make: Callable[[Path], bytes]) -> Maker:
    def write(folder: Path) -> Path:
        folder = folder / "dcp"
        folder.mkdir()
        mark = b"torch.distributed.checkpoint.metadata"
        content = b"\x80\x02U" + bytes([len(mark)]) + mark + b"0" + make(canary(folder.parent)) + b"."
        (folder / ".metadata").write_bytes(content)
        return folder / ".metadata"

    return write


def metadata_naming(shard: str) -> Maker:
    """A plain metadata whose one tensor lies in a file of its choice."""

    def write(folder: Path) -> Path:
        from types import SimpleNamespace as Space

        folder = folder / "dcp"
        folder.mkdir()
        chunk = Space(offsets=(0,), sizes=(4,))
        value = Space(
            note="torch.distributed.checkpoint.metadata",
            state_dict_metadata={"w": Space(size=(4,), chunks=[chunk])},
            storage_data={_Hashable(fqn="w", offset=(0,)): Space(relative_path=shard, offset=0, length=100)},
        )
        (folder / ".metadata").write_bytes(pickle.dumps(value, 2))
        return folder / ".metadata"

    return write


class _Hashable:
    """Pickles as its attributes, and may be a key."""

    def __init__(self, **state: object):
        self.__dict__.update(state)


def msgpack(content: bytes) -> Maker:
    def write(folder: Path) -> Path:
        (folder / "s.msgpack").write_bytes(content)
        return folder / "s.msgpack"

    return write


FILES: dict[str, tuple[Maker, str]] = {
    # pickles that run
    "reduce": (torch_of(lambda p: pickles.runs_a_command(p, 2)), "system called"),
    "reduce, protocol 5": (torch_of(lambda p: pickles.runs_a_command(p, 5)), "system called"),
    "eval": (legacy_of(pickles.evaluates_code), "builtins.eval called"),
    "inst": (torch_of(pickles.runs_by_inst), "os.system called"),
    "obj": (torch_of(pickles.runs_by_obj), "os.system called"),
    "build": (torch_of(pickles.runs_by_build), "os.system imported"),
    "newobj_ex": (torch_of(pickles.runs_through_newobj_ex), "subprocess.Popen called"),
    "getattr": (torch_of(pickles.runs_through_getattr), "importlib.import_module called"),
    "stack_global": (torch_of(by_stack_global), "posix.system called"),
    "dotted name": (torch_of(by_nested_attribute), "tempfile._os.system called"),
    "extension": (torch_of(by_extension), "extension_7"),
    "persistent id": (torch_of(by_persistent_id), "os.system called"),
    "storage class": (torch_of(by_storage_class), "os.system imported"),
    "pickle in a pickle": (torch_of(by_load_within), "pickle.loads called"),
    "torch.load": (torch_of(by_torch_load), "torch.load called"),
    "globals": (torch_of(by_setitems_on_globals), "builtins.globals called"),
    "DCP metadata": (metadata_of(system), "os.system called"),
    # pickles that exhaust or crash
    "nested lists": (bare(pickles.nested_lists(200_000)), "nested deeper"),
    "tuple keys": (bare(pickles.nested_tuples_as_key(100_000)), "too large to be a key"),
    "doubled tuple keys": (bare(pickles.shared_tuples_as_key(60)), "too large to be a key"),
    "billion laughs": (bare(pickles.doubled_lists(100)), "no tensors"),
    "copies of copies": (bare(pickles.copies_again_and_again(2_000)), "again and again"),
    "huge integer": (bare(pickles.huge_long()), "integer of"),
    "huge decimal": (bare(pickles.huge_decimal()), "longer than"),
    "huge string": (bare(pickles.huge_length(b"\x8d", 8)), "needs"),
    "huge frame": (bare(pickles.huge_frame()), "frame of"),
    "huge memo index": (bare(pickles.huge_memo_index()), "no tensors"),
    "many marks": (bare(pickles.many_marks(1_000_000)), "open at once"),
    "many containers": (bare(pickles.many_containers(3_000_000)), "containers"),
    "colliding keys": (bare(pickles.colliding_keys(50_000)), "used as a key"),
    "bytes of a length": (bare(pickles.bytes_of_length()), "no tensors"),
    "long keys, nested": (bare(shared_keys_nested(500)), "no tensors"),
    "one tensor many times": (bare(one_tensor_many_times(120_000)), "only part"),
    "short strings": (bare(expanding_strings(1_000_000)), "no tensors"),
    "persistent id of nonsense": (torch_of(persistent_of_nonsense), "no name"),
    # tensors that lie
    "storage beyond the file": (torch_of(lambda _: forge.torch_pickle(elements=2**40)), "are needed"),
    "shape beyond the storage": (torch_of(lambda _: forge.torch_pickle(offset=2**30)), "of a storage of"),
    "expanded without end": (
        torch_of(lambda _: forge.torch_pickle(shape=b"\x8a\x05\x00\x00\x00\x00\x10\x85", strides=b"K\x00\x85")),
        "expands",
    ),
    "path as storage key": (torch_of(lambda _: forge.torch_pickle(key="../../etc/passwd")), "not in the archive"),
    # zips
    "deflate bomb": (lambda folder: forge.deflate_bomb(folder / "c.pt", 272 << 20), "more than the"),
    "nested archives": (nested_archives, "are needed"),
    "two members of one name": (two_members_of_one_name, "two members"),
    "more members than bytes": (huge_member_count, "directory"),
    "zip64 of 2**40 members": (huge_directory_64, "directory"),
    "overlapping members": (
        lambda folder: forge.patch_directory(forge.torch_zip(folder / "c.pt", forge.torch_pickle()), "archive/data/0", header=0),
        "overlaps",
    ),
    "forged descriptors": (cut_with_forged_descriptor, "cut off"),
    # safetensors
    "header of 2**63 bytes": (header(b"{}", 2**63), "header of"),
    "deep JSON": (header(b"[" * 100_000), "not JSON"),
    "one name twice": (header(tensors(("w", "U8", [8], [0, 8]), ("w", "U8", [4], [0, 4]))), "twice"),
    "NaN as an offset": (header(b'{"w":{"dtype":"U8","shape":[8],"data_offsets":[NaN,8]}}'), "impossible number"),
    "overlapping tensors": (header(tensors(("a", "U8", [8], [0, 8]), ("b", "U8", [4], [4, 8]))), "overlaps"),
    "shape of 2**80": (header(tensors(("w", "F32", [2**40, 2**40], [0, 8]))), "data_offsets give"),
    "behind the file": (header(tensors(("w", "U8", [2**40], [0, 2**40]))), "behind the end"),
    # HDF5
    "external link": (hdf5(_external_link), "was not followed"),
    "soft link to itself": (hdf5(_soft_cycle), "was not followed"),
    "hard link cycle": (hdf5(_hard_cycle), "was not followed"),
    "external storage": (hdf5(_external_storage), "another file"),
    "virtual dataset": (hdf5(_virtual), "another file"),
    "huge chunks": (hdf5(_huge_chunks), "claims"),
    "eight tebibytes of nothing": (hdf5(_never_written), "claims"),
    # ONNX
    "external data above": (onnx(external("../secret")), "outside the model's folder"),
    "external data, absolute": (onnx(external("/etc/passwd")), "outside the model's folder"),
    "external data, huge offset": (onnx(external("m.onnx", offset=str(2**50))), "before its data does"),
    "external data, offset of text": (onnx(external("m.onnx", offset="9" * 40)), "no number"),
    "raw data of 2**60 bytes": (onnx(whole=field(7, field(5, field(9, b"x", 2**60)))), "cut off"),
    "shape of 2**50": (onnx(b"\x08" + varint(2**50) + b"\x10\x01" + field(9, bytes(16))), "impossible"),
    "endless varint": (onnx(whole=b"\x3a" + b"\xff" * 40), "ten bytes"),
    "groups": (onnx(whole=b"\x0b" * 40), "wire type"),
    # GGUF
    "2**60 tensors": (gguf(2**60, 0), "claims"),
    "2**60 settings": (gguf(0, 2**60), "claims"),
    "text of 2**60 bytes": (gguf(0, 1, gguf_text(b"", 2**60)), "a name of"),
    "array of 2**60 numbers": (gguf(0, 1, gguf_text(b"k") + struct.pack("<IIQ", 9, 4, 2**60)), "numbers in"),
    "array of arrays": (gguf(0, 1, gguf_text(b"k") + struct.pack("<IIQ", 9, 9, 2**60)), "elements of type"),
    "shape of 2**64": (
        gguf(1, 0, gguf_text(b"w") + struct.pack("<I2QIQ", 2, 2**63, 2**63, 0, 0) + bytes(64)),
        "impossible",
    ),
    # NumPy
    "pickled objects": (npz_of_objects, "pickled Python objects"),
    "array of 2**60": (npz_with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846976,)}"), "impossible"),
    "array beyond the file": (npz_with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1048576,)}"), "asks for"),
    "code in a header": (npz_with_header("__import__('os').system('x')"), "not read"),
    # several files
    "shards above": (index_of({"w": "../../etc/passwd", "v": "/etc/passwd"}), "outside"),
    "shards of numbers": (index_of({"w": 3, "v": None}), "outside"),
    "an index that is its own shard": (index_of({"w": "model.safetensors.index.json"}), "cannot be read"),
    "DCP shard above": (metadata_naming("../../etc/passwd"), "outside the folder"),
    "DCP shard missing": (metadata_naming("__0_0.distcp"), "is missing"),
    # MessagePack
    "map of 2**32": (msgpack(b"\x81\xa1a\xdf\xff\xff\xff\xff"), "left"),
    "string of 2**32": (msgpack(b"\x81\xa1a\xdb\xff\xff\xff\xff"), "left"),
    "nested maps": (msgpack(b"\x81\xa1a" * 100_000), "levels"),
}  # fmt: skip


def write_all(folder: Path, names: Iterable[str] = FILES) -> dict[str, Path]:
    """The corpus below ``folder``, one folder for each."""
    written = {}
    for number, name in enumerate(names):
        place = folder / f"{number:03}"
        place.mkdir(parents=True)
        written[name] = FILES[name][0](place)
    return written


if __name__ == "__main__":
    for name, path in write_all(Path(sys.argv[1])).items():
        print(f"{name:34} {path.stat().st_size:10} {path}")
