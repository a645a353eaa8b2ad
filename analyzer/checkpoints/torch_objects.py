"""What torch's pickles rebuild, as descriptions: storages, tensors, parameters, sizes, devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from analyzer.checkpoints.pickle_machine import Build, Record, Reference, Stop
from analyzer.checkpoints.regions import (
    DTYPES,
    QUANTISED,
    Blocks,
    GridScaledBlocks,
    Region,
    ScaledBlocks,
    StoredBlocks,
    element_count,
    extent,
    row_major,
)

_MAX_AXES = 64
_MAX_EXPANSION = 1 << 24  # elements an overlapping view may have beyond those stored

# legacy class names; of quantised storages the integers
STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
    "UntypedStorage": "",
}
_DTYPE_NAMES = {"double": "float64", "float": "float32", "half": "float16", "long": "int64", "int": "int32"}


@dataclass(slots=True, eq=False)
class Storage:
    """A stretch of elements in the file. ``dtype`` is "" for untyped bytes, ``size`` in bytes.

    ``region`` is None until its place in the file is known; ``fault`` says why it cannot be read.
    """

    key: str
    dtype: str
    size: int
    region: Region | None = None
    big_endian: bool = False
    start: int = 0  # bytes from the region's start, for a view of another storage
    fault: str = ""


@dataclass(slots=True, eq=False)
class StoredTensor:
    """A tensor as pickled; ``offset`` and ``strides`` in elements."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    parameter: bool = False


@dataclass(slots=True, eq=False)
class PlacedTensor(StoredTensor):
    """A tensor whose elements do not lie in one storage: ``placed`` reads them."""

    placed: Blocks | None = None


def placed_tensor(shape: tuple[int, ...], dtype: str, blocks: Blocks) -> PlacedTensor:
    return PlacedTensor(Storage("", dtype, 0), dtype, 0, shape, row_major(shape), placed=blocks)


def tensor_fault(tensor: StoredTensor) -> str:
    """Why the tensor cannot be read, or ""."""
    if isinstance(tensor, PlacedTensor):
        return ""
    storage = tensor.storage
    if storage.fault or storage.region is None:
        return storage.fault or "its storage is not in the file"
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        return f"element type {tensor.dtype} is not supported"
    end = (tensor.offset + extent(tensor.shape, tensor.strides)) * dtype.size
    if 0 not in tensor.shape and end > storage.size:
        return f"needs {end} bytes of a storage of {storage.size}"
    if element_count(tensor.shape) * dtype.size > storage.size + _MAX_EXPANSION:
        return f"overlapping view expands {storage.size} bytes to shape {list(tensor.shape)[:8]}"
    return ""


def tensor_blocks(tensor: StoredTensor) -> Blocks:
    """Reads the tensor; call only when it has no fault."""
    if isinstance(tensor, PlacedTensor) and tensor.placed is not None:
        return tensor.placed
    return stored_blocks(tensor)


def stored_blocks(tensor: StoredTensor) -> StoredBlocks:
    """The same for a tensor of one storage."""
    storage = tensor.storage
    if storage.region is None:
        raise ValueError("storage without a place")
    offset = storage.start + tensor.offset * DTYPES[tensor.dtype].size
    return StoredBlocks(
        storage.region, tensor.dtype, tensor.shape, tensor.strides, offset, storage.big_endian
    )


def storage_dtype(kind: object) -> str:
    """Element type of a storage class (or dtype) named in a pickle; "" for untyped bytes."""
    if not isinstance(kind, Reference):
        raise Stop("storage of a class that is no name")
    return STORAGE_DTYPES.get(kind.name, dtype_name(kind))


def dtype_name(dtype: object) -> str:
    if not isinstance(dtype, Reference):
        raise Stop("element type that is no name")
    return _DTYPE_NAMES.get(dtype.name, dtype.name)


def _sizes(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > _MAX_AXES:
        raise Stop("tensor shape or strides that are no short tuple")
    numbers = tuple(n for n in value if isinstance(n, int) and 0 <= n < 1 << 48)
    if len(numbers) != len(value):
        raise Stop("tensor with a negative or impossible size or stride")
    return numbers


def _tensor(storage: object, offset: object, shape: object, strides: object, dtype: str = "") -> object:
    if not isinstance(storage, Storage):
        return NotImplemented
    if not isinstance(offset, int) or not 0 <= offset < 1 << 48:
        raise Stop("tensor with a negative or impossible offset")
    sizes, steps = _sizes(shape), _sizes(strides)
    if len(sizes) != len(steps):
        raise Stop("tensor with more sizes than strides")
    return StoredTensor(storage, dtype or storage.dtype, offset, sizes, steps)


def _rebuild_tensor(args: tuple[object, ...]) -> object:
    """``_rebuild_tensor(storage, offset, size, stride)``, and v2 with more that we do not need."""
    return _tensor(args[0], args[1], args[2], args[3]) if len(args) >= 4 else NotImplemented


def _rebuild_tensor_v3(args: tuple[object, ...]) -> object:
    """v3 adds the element type: its storage is untyped."""
    return (
        _tensor(args[0], args[1], args[2], args[3], dtype_name(args[6])) if len(args) >= 7 else NotImplemented
    )


def _rebuild_quantised(args: tuple[object, ...]) -> object:
    """``_rebuild_qtensor(storage, offset, size, stride, (scheme, scale, zero point[, axis]), …)``."""
    tensor = _tensor(args[0], args[1], args[2], args[3]) if len(args) >= 5 else NotImplemented
    if not isinstance(tensor, StoredTensor) or tensor_fault(tensor):
        return tensor
    scheme, *facts = args[4] if isinstance(args[4], tuple) and args[4] else (None,)
    name = scheme.name if isinstance(scheme, Reference) else ""
    blocks = _scaled(tensor, facts) if name == "per_tensor_affine" else None
    blocks = _scaled_by_channel(tensor, facts) if name == "per_channel_affine" else blocks
    if blocks is None:
        tensor.storage = replace(tensor.storage, fault="quantised in a way that is not known: not measured")
        return tensor
    dtype = next((name for name, stored in QUANTISED.items() if stored == tensor.dtype), tensor.dtype)
    return placed_tensor(tensor.shape, dtype, blocks)


def _scaled(tensor: StoredTensor, facts: list[object]) -> Blocks | None:
    match facts:
        case [float(scale), int(zero)]:
            return ScaledBlocks(stored_blocks(tensor), scale, zero)
    return None


def _scaled_by_channel(tensor: StoredTensor, facts: list[object]) -> Blocks | None:
    """Scales and zero points for each index of one axis."""
    match facts:
        case [StoredTensor() as scales, StoredTensor() as zeros, int(axis)] if 0 <= axis < len(tensor.shape):
            channels = tensor.shape[axis]
            if _numbers(scales, "float64", channels) and _numbers(zeros, "int64", channels):
                grid = tuple(n if k == axis else 1 for k, n in enumerate(tensor.shape))
                whole, steps = stored_blocks(tensor), stored_blocks(scales)
                return GridScaledBlocks(whole, steps, grid, stored_blocks(zeros))
    return None


def _numbers(found: StoredTensor, dtype: str, count: int) -> bool:
    """So many numbers of that type, none of them made up by a stride of zero."""
    fits = found.dtype == dtype and found.shape == (count,) and found.strides == (1,)
    return fits and not isinstance(found, PlacedTensor) and not tensor_fault(found)


def _rebuild_parameter(args: tuple[object, ...]) -> object:
    if not args or not isinstance(args[0], StoredTensor):
        return NotImplemented
    args[0].parameter = True
    return args[0]


def _rebuild_from_type(args: tuple[object, ...]) -> object:
    """``torch._tensor._rebuild_from_type_v2(function, type, args, state)``: subclasses, attributes."""
    if len(args) < 3 or not isinstance(args[0], Reference) or not isinstance(args[2], tuple):
        return NotImplemented
    build = _REBUILDS.get(args[0])
    return build(args[2]) if build else NotImplemented


def _size(args: tuple[object, ...]) -> object:
    return args[0] if args and isinstance(args[0], tuple) else ()


def _device(args: tuple[object, ...]) -> object:
    return ":".join(str(a) for a in args if isinstance(a, (str, int)))


def _typed_storage(args: tuple[object, ...]) -> object:
    return args[0] if args and isinstance(args[0], Storage) else NotImplemented


_REBUILDS: dict[Reference, Build] = {
    Reference("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    Reference("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    Reference("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    Reference("torch._utils", "_rebuild_qtensor"): _rebuild_quantised,
    Reference("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    Reference("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
}
BUILDS: dict[Reference, Build] = {
    **_REBUILDS,
    Reference("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    Reference("torch", "Size"): _size,
    Reference("torch", "device"): _device,
    Reference("torch.storage", "TypedStorage"): _typed_storage,
}


def persistent_storages(
    place: Callable[[str, str, int], Storage],
) -> Callable[[object], object]:
    """A persistent-id callback: ``place(key, dtype, elements)`` makes each storage once.

    Ids are ``("storage", class, key, location, elements)``, in the legacy format with a view
    ``(key, offset, elements)`` of the storage behind; ``("module", class, …)`` in very old files.
    """
    made: dict[tuple[str, str], Storage] = {}

    def resolve(identity: object) -> object:
        if isinstance(identity, tuple) and len(identity) >= 2 and identity[0] == "module":
            return identity[1]
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            return Record(Reference("persistent", "id"), (identity,))
        dtype, key, elements = storage_dtype(identity[1]), identity[2], identity[4]
        if not isinstance(key, str) or not isinstance(elements, int) or not 0 <= elements < 1 << 56:
            raise Stop("storage with an impossible key or size")
        if (key, dtype) not in made:
            made[key, dtype] = place(key, dtype, elements)
        root = made[key, dtype]
        view = identity[5] if len(identity) > 5 else None
        return root if view is None else _viewed(root, view)

    return resolve


def _viewed(root: Storage, view: object) -> Storage | Record:
    if not isinstance(view, tuple) or len(view) != 3 or not all(isinstance(n, int) for n in view[1:]):
        raise Stop("storage view that is no (key, offset, size)")
    width = DTYPES[root.dtype].size if root.dtype in DTYPES else 1
    start, size = int(view[1]) * width, int(view[2]) * width
    if start < 0 or size < 0 or start + size > root.size:
        raise Stop("storage view outside its storage")
    return Storage(str(view[0]), root.dtype, size, root.region, root.big_endian, start, root.fault)
