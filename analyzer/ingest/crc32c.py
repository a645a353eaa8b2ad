"""CRC32C of many byte strings at once, and of their parts.

A CRC register is linear over XOR in both the register and the data. So the registers of parts may be
computed from zero, passed over the bytes that follow ("shifted") and combined.
Polynomial: RFC 3720, section 12.1. Tables of several bytes: Kounavis and Berry, "Novel Table
Lookup-Based Algorithms for High-Performance CRC Generation", 2008.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

BLOCK = 64  # bytes whose checksum is computed in one row
ROWS = 1 << 14  # rows handled at a time
LITTLE = 512  # bytes whose checksums are sooner computed one by one
LONG, MUCH = 256, 1 << 18  # bytes of a payload, and of all, from which on compiled code is sooner

Bytes = NDArray[np.uint8]
Crcs = NDArray[np.uint32]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]


def items(data: Bytes, size: int) -> NDArray[np.void]:
    """The ``size`` bytes at every offset of ``data``: indexed by offsets, it copies whole items."""
    return np.ndarray(max(len(data) - size + 1, 0), f"V{size}", data, strides=1)


@cache
def byte_table() -> Crcs:
    """Effect of one byte on CRC32C (Castagnoli, reflected polynomial 0x82F63B78)."""
    crc: Crcs = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = (crc >> np.uint32(1)) ^ np.where(crc & 1, np.uint32(0x82F63B78), np.uint32(0))
    return crc


@cache
def _byte_list() -> list[int]:
    return [int(effect) for effect in byte_table()]


def crc32c(data: bytes) -> int:
    """CRC32C of a few bytes."""
    table = _byte_list()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """The form in which TFRecord stores a checksum."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def mask_all(crcs: Crcs) -> Crcs:
    out: Crcs = ((crcs >> np.uint32(15)) | (crcs << np.uint32(17))) + np.uint32(0xA282EAD8)
    return out


def shift(table: Crcs, crcs: Crcs) -> Crcs:
    """Registers ``crcs`` after the number of zero bytes that ``table`` [4, 256] stands for."""
    wide = crcs.astype(np.int64)
    out: Crcs = table[0].take(wide & 255, mode="wrap")
    for k in range(1, 4):
        out ^= table[k].take((wide >> 8 * k) & 255, mode="wrap")
    return out


@cache
def shift_table(power: int) -> Crcs:
    """Table [4, 256] that passes a CRC register over ``2 ** power`` zero bytes."""
    if power:
        half = shift_table(power - 1)
        return shift(half, half.reshape(-1)).reshape(4, 256)
    values = np.arange(256, dtype=np.uint32)
    table: Crcs = np.stack([values << np.uint32(8 * k) for k in range(4)])
    one: Crcs = byte_table()[table & 0xFF] ^ (table >> np.uint32(8))
    return one


@lru_cache(1024)
def _shift_table(count: int) -> Crcs:
    """Table [4, 256] that passes a CRC register over ``count`` zero bytes."""
    table = np.stack([np.arange(256, dtype=np.uint32) << np.uint32(8 * k) for k in range(4)])
    for power in range(count.bit_length()):
        if count >> power & 1:
            table = shift(shift_table(power), table.reshape(-1)).reshape(4, 256)
    return table


@lru_cache(64)
def _shift_tables(counts: tuple[int, ...]) -> Crcs:
    return np.concatenate([_shift_table(count).reshape(-1) for count in counts])


def shift_each(crcs: Crcs, counts: Ints, kinds: Ints) -> Crcs:
    """Registers after ``counts[kinds[i]]`` zero bytes each."""
    if len(counts) == 1:
        return shift(_shift_table(int(counts[0])), crcs)
    flat = _shift_tables(tuple(counts.tolist()))
    wide = crcs.astype(np.int64)
    base = kinds * 1024
    out = flat.take(base + (wide & 255), mode="wrap")
    for k in range(1, 4):
        base += 256
        out ^= flat.take(base + ((wide >> 8 * k) & 255), mode="wrap")
    return out


@lru_cache(16)
def _word_tables_before(count: int) -> tuple[Crcs, ...]:
    """The tables of a word that ``count`` zero bytes follow."""
    return tuple(shift(_shift_table(count), table) for table in _word_tables()) if count else _word_tables()


def linear(words: Words | Crcs, count: int) -> Crcs:
    """CRC registers, from zero, of single words that ``count`` zero bytes follow."""
    tables = _word_tables_before(count)[-words.itemsize // 2 :]
    first = int(words.flat[0]) if words.size else 0
    shared = 0
    for k, table in enumerate(tables):
        shared ^= int(table[(first >> 16 * k) & 0xFFFF])
    wide = words.astype(np.int64)  # neighbours have many bits in common: only the others are looked up
    wide ^= np.uint64(first).astype(np.int64)
    top = int(wide.view(np.uint64).max(initial=0))
    out = tables[0].take(wide & 0xFFFF, mode="wrap")
    for k, table in enumerate(tables[1:], 1):
        if top >> 16 * k:
            wide >>= 16
            out ^= table.take(wide & 0xFFFF, mode="wrap")
    out ^= np.uint32(shared)
    return out


@cache
def _word_tables() -> tuple[Crcs, Crcs, Crcs, Crcs]:
    """Four tables [65536]: effect of each 16-bit part of a 64-bit word on the register after it."""
    low = [byte_table()]
    for _ in range(7):
        low.append(byte_table()[low[-1] & 0xFF] ^ (low[-1] >> np.uint32(8)))
    pairs = [np.bitwise_xor.outer(low[6 - 2 * k], low[7 - 2 * k]).reshape(-1) for k in range(4)]
    return pairs[0], pairs[1], pairs[2], pairs[3]


def hashes(words: Words, turn: int = 0) -> Ints:
    """A number of 16 bits for each row of ``words``; other numbers at another ``turn``."""
    powers = np.arange(1, words.shape[1] + 1, dtype=np.uint64) + np.uint64(100 * turn)
    mixed = words @ ((powers * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1))
    mixed ^= mixed >> np.uint64(29)
    return ((mixed * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(48)).view(np.int64)


def _linear_distinct(words: Words) -> tuple[Crcs, bool]:
    """As ``_linear``, at once for rows that are equal (histograms repeat limits and zeros); if it paid."""
    keys = hashes(words)
    slots = np.empty(1 << 16, np.int64)
    numbers = np.arange(len(words))
    slots[keys] = numbers
    example = slots[keys]
    different = words ^ words[example]
    own = example == numbers
    for k in range(words.shape[1]):
        own |= different[:, k] != 0
    if 2 * np.count_nonzero(own) > len(own):
        return _linear(words), False
    out = np.zeros(len(words), np.uint32)
    out[own] = _linear(words[own])
    return out[np.where(own, numbers, example)], True


def _linear(words: Words) -> Crcs:
    """CRC registers of the rows of ``words`` [n, k], starting from zero."""
    tables = _word_tables()
    crc = np.zeros(len(words), np.uint32)
    for k in range(words.shape[1]):
        word = (words[:, k] ^ crc).view(np.int64)
        crc = tables[0].take(word & 0xFFFF, mode="wrap")
        for j in range(1, 4):
            crc ^= tables[j].take((word >> 16 * j) & 0xFFFF, mode="wrap")
    return crc


@cache
def _clear_masks() -> Words:
    """Row p [BLOCK / 8 words] clears the first p bytes of a block."""
    keep = np.arange(BLOCK)[None, :] >= np.arange(BLOCK)[:, None]
    return np.where(keep, np.uint8(255), np.uint8(0)).view(np.uint64)


@cache
def _zero_registers(power: int) -> Crcs:
    """Entry n: the register 0xFFFFFFFF after n zero bytes, for n below ``2 ** power``."""
    out = np.array([0xFFFFFFFF], np.uint32)
    for k in range(power):
        out = np.concatenate([out, shift(shift_table(k), out)])
    return out


def start_registers(lengths: Ints) -> Crcs:
    """The register 0xFFFFFFFF after ``lengths`` zero bytes each."""
    low: Crcs = _zero_registers(12)[lengths & 4095]
    high = lengths >> 12
    power = 12
    while high.any():
        odd = np.flatnonzero(high & 1)
        low[odd] = shift(shift_table(power), low[odd])
        high = high >> 1
        power += 1
    return low


def _fold(crcs: Crcs, counts: Ints) -> Crcs:
    """Join the blocks of each record: ``counts[i]`` blocks, the record's last block first."""
    power = BLOCK.bit_length() - 1
    while counts.size and counts.max() > 1:
        halves = (counts + 1) // 2
        first = np.repeat(np.cumsum(counts) - counts, halves)
        pair = np.arange(len(first)) - np.repeat(np.cumsum(halves) - halves, halves)
        left = first + 2 * pair
        whole = 2 * pair + 1 < np.repeat(counts, halves)
        out = crcs[left]
        out[whole] ^= shift(shift_table(power), crcs[left[whole] + 1])
        crcs, counts, power = out, halves, power + 1
    return crcs


@cache
def _compiled() -> Callable[[bytes], int] | None:
    """CRC32C of the package google-crc32c, where it is installed with its compiled part."""
    try:
        package = importlib.import_module("google_crc32c")
    except ImportError:
        return None
    value: Callable[[bytes], int] = package.value
    return value if package.implementation == "c" else None


def checksums(data: Bytes, starts: Ints, lengths: Ints) -> Crcs:
    """Masked CRC32C of each payload; ``data`` has ``MARGIN`` bytes before the first of them."""
    total = int(lengths.sum())
    one: Callable[[bytes], int] | None = crc32c if total < LITTLE else None
    if total >= max(MUCH, LONG * len(lengths)):
        one = _compiled()
    if one is not None:
        spans = zip(starts.tolist(), lengths.tolist(), strict=True)
        return np.array([masked(one(data[at : at + size].tobytes())) for at, size in spans], np.uint32)
    return _checksums(data, starts, lengths)


def _checksums(data: Bytes, starts: Ints, lengths: Ints) -> Crcs:
    """As ``checksums``, by blocks of equal size."""
    counts = np.maximum((lengths + BLOCK - 1) // BLOCK, 1)
    ends = np.cumsum(counts)
    back = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    positions = np.repeat(starts + lengths, counts) - BLOCK * (back + 1)
    leading = ends - 1  # the first block of a record, partly before its start
    pads = counts * BLOCK - lengths
    blocks = items(data, BLOCK)
    crcs = np.empty(len(positions), np.uint32)
    repeats = True
    for low in range(0, len(positions), ROWS):
        rows = blocks[positions[low : low + ROWS]].view(np.uint64).reshape(-1, BLOCK // 8)
        some = slice(*np.searchsorted(leading, [low, low + ROWS]))
        whole = pads[some] == BLOCK  # an empty payload
        rows[leading[some] - low] &= np.where(
            whole[:, None], np.uint64(0), _clear_masks()[pads[some] % BLOCK]
        )
        if repeats:
            crcs[low : low + ROWS], repeats = _linear_distinct(rows)
        else:
            crcs[low : low + ROWS] = _linear(rows)
    return mask_all(~(_fold(crcs, counts) ^ start_registers(lengths)))
