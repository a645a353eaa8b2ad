"""CRC32C of many payloads: all of a stretch at once, or of each on its own.

A CRC register is linear over XOR in both the register and the data. So a checksum of a payload can
be turned into a word that, read behind the payload, brings the register back to zero. With all
checksums of a stretch of records turned so, one pass over the stretch ends at the expected register
if every record is whole. A record that is not leaves a rest, which the bytes behind it carry on but
never remove; the rests of several records cancel as seldom as a CRC misses damage at all: once in
2**32, and never for up to three flipped bits.
Polynomial: RFC 3720, section 12.1. Tables of several bytes: Kounavis and Berry, "Novel Table
Lookup-Based Algorithms for High-Performance CRC Generation", 2008.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Crcs = NDArray[np.uint32]
    Ints = NDArray[np.int64]
    Words = NDArray[np.uint64]
else:
    Bytes = Crcs = Ints = Words = np.ndarray

BLOCK = 64  # bytes whose checksum is computed in one row
ROWS = 1 << 14  # rows handled at a time
ALL = 0xFFFFFFFF  # a CRC starts from this register and ends by inverting it

Extend = Callable[[int, Any], int]


@cache
def compiled() -> Extend | None:
    """CRC32C continued over further bytes, where google-crc32c has its compiled part."""
    with warnings.catch_warnings(action="ignore"):  # it warns where it has none
        try:
            package = importlib.import_module("google_crc32c")
        except ImportError:
            return None
    extend: Extend = package.extend
    return extend if package.implementation == "c" else None


def items(data: Bytes, size: int) -> NDArray[np.void]:
    """The ``size`` bytes at every offset of ``data``: indexed by offsets, it copies whole items."""
    return np.ndarray(max(len(data) - size + 1, 0), f"V{size}", data, strides=1)


# --------------------------------------------------------------------------- single ones


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
    crc = ALL
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ ALL


def masked(crc: int) -> int:
    """The form in which TFRecord stores a checksum."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & ALL


def mask_all(crcs: Crcs) -> Crcs:
    out: Crcs = ((crcs >> np.uint32(15)) | (crcs << np.uint32(17))) + np.uint32(0xA282EAD8)
    return out


# --------------------------------------------------------------------------- a stretch at once


@cache
def _byte_by_effect() -> list[int]:
    """The byte whose effect has a given highest byte."""
    out = [0] * 256
    for byte, effect in enumerate(_byte_list()):
        out[effect >> 24] = byte
    return out


@lru_cache(1 << 14)
def register_before(data: bytes) -> int:
    """The register that these bytes bring to zero."""
    table, byte_by_effect = _byte_list(), _byte_by_effect()
    register = 0
    for byte in reversed(data):
        effect = byte_by_effect[register >> 24]
        register = (((register ^ table[effect]) << 8) & ALL | effect) ^ byte
    return register


def links(lengths: Ints, behind: Crcs) -> Crcs:
    """What turns the checksums of payloads of these lengths into words that a register goes through from
    zero before the payload to where ``behind`` would get through four bytes of zeros."""
    out: Crcs = start_registers(lengths) ^ np.uint32(ALL)
    out ^= behind
    return out


def linked(stored: Crcs, links: Crcs) -> Crcs:
    """The words for stored checksums, in place of which they are to be read."""
    turned = stored - np.uint32(0xA282EAD8)
    out = turned >> np.uint32(17)
    turned <<= np.uint32(15)
    out |= turned
    out ^= links
    return out


def leads(data: Bytes, before: int, after: int) -> bool:
    """Whether ``data`` brings the register from ``before`` to ``after``."""
    extend = compiled()
    assert extend is not None
    return extend(before ^ ALL, data) == after ^ ALL


# --------------------------------------------------------------------------- each on its own


def checksums(data: Bytes, starts: Ints, lengths: Ints) -> Crcs:
    """Masked CRC32C of each payload; ``data`` has ``MARGIN`` bytes before the first of them."""
    extend = compiled()
    if extend is None:
        return _checksums(data, starts, lengths)
    spans = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
    return mask_all(np.array([extend(0, data[start:end]) for start, end in spans], np.uint32))


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
    for low in range(0, len(positions), ROWS):
        rows = blocks[positions[low : low + ROWS]].view(np.uint64).reshape(-1, BLOCK // 8)
        some = slice(*np.searchsorted(leading, [low, low + ROWS]))
        whole = pads[some] == BLOCK  # an empty payload
        rows[leading[some] - low] &= np.where(
            whole[:, None], np.uint64(0), _clear_masks()[pads[some] % BLOCK]
        )
        crcs[low : low + ROWS] = linear(rows)
    return mask_all(~(_fold(crcs, counts) ^ start_registers(lengths)))


def linear(words: Words) -> Crcs:
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
def _word_tables() -> tuple[Crcs, Crcs, Crcs, Crcs]:
    """Four tables [65536]: effect of each 16-bit part of a 64-bit word on the register after it."""
    low = [byte_table()]
    for _ in range(7):
        low.append(byte_table()[low[-1] & 0xFF] ^ (low[-1] >> np.uint32(8)))
    pairs = [np.bitwise_xor.outer(low[6 - 2 * k], low[7 - 2 * k]).reshape(-1) for k in range(4)]
    return pairs[0], pairs[1], pairs[2], pairs[3]


@cache
def _clear_masks() -> Words:
    """Row p [BLOCK / 8 words] clears the first p bytes of a block."""
    keep = np.arange(BLOCK)[None, :] >= np.arange(BLOCK)[:, None]
    return np.where(keep, np.uint8(255), np.uint8(0)).view(np.uint64)


def _shift(table: Crcs, crcs: Crcs) -> Crcs:
    """Registers ``crcs`` after the number of zero bytes that ``table`` [4, 256] stands for."""
    wide = crcs.astype(np.int64)
    out: Crcs = table[0].take(wide & 255, mode="wrap")
    for k in range(1, 4):
        out ^= table[k].take((wide >> 8 * k) & 255, mode="wrap")
    return out


@cache
def _shift_table(power: int) -> Crcs:
    """Table [4, 256] that passes a CRC register over ``2 ** power`` zero bytes."""
    if power:
        half = _shift_table(power - 1)
        return _shift(half, half.reshape(-1)).reshape(4, 256)
    values = np.arange(256, dtype=np.uint32)
    table: Crcs = np.stack([values << np.uint32(8 * k) for k in range(4)])
    one: Crcs = byte_table()[table & 0xFF] ^ (table >> np.uint32(8))
    return one


@cache
def _zero_registers(power: int) -> Crcs:
    """Entry n: the register 0xFFFFFFFF after n zero bytes, for n below ``2 ** power``."""
    out = np.array([ALL], np.uint32)
    for k in range(power):
        out = np.concatenate([out, _shift(_shift_table(k), out)])
    return out


def start_registers(lengths: Ints) -> Crcs:
    """The register 0xFFFFFFFF after ``lengths`` zero bytes each."""
    low: Crcs = _zero_registers(12)[lengths & 4095]
    high = lengths >> 12
    power = 12
    while high.any():
        odd = np.flatnonzero(high & 1)
        low[odd] = _shift(_shift_table(power), low[odd])
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
        out[whole] ^= _shift(_shift_table(power), crcs[left[whole] + 1])
        crcs, counts, power = out, halves, power + 1
    return crcs
