"""Makes text that came from a file harmless to show: nothing of it steers a terminal or a reader's eye."""

from __future__ import annotations

import unicodedata

# Invisible or reordering characters: controls, formats (bidi overrides, zero-width), surrogates,
# private use, unassigned, line and paragraph separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS = frozenset("\u200c\u200d")  # needed to write Persian, Hindi and many emoji
_ASCII = {
    "—": "-", "–": "-", "−": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "…": "...", "·": "*",
    "×": "x", "÷": "/", "≥": ">=", "≤": "<=", "≠": "!=", "≈": "~", "→": "->", "±": "+/-", "\u00a0": " ",
    "\u202f": " ", "∞": "inf",
    "•": "*", "√": "sqrt", "β": "beta", "γ": "gamma", "ε": "eps", "λ": "lambda", "²": "^2",
}  # fmt: skip


def plain(text: str, keep: str = "") -> str:
    r"""The text with every hidden character except those of ``keep`` spelled out, as ``\x1b``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep else _spelled(c) for c in text)


def plain_block(text: str) -> str:
    """Like :func:`plain` for text of several lines: newlines and tabs stay."""
    return plain(text.replace("\r\n", "\n"), keep="\n\t")


def ascii_only(text: str) -> str:
    """The text in ASCII: familiar signs by their look, everything else spelled out."""
    if text.isascii():
        return text
    return "".join(_ASCII.get(c, c) for c in text).encode("ascii", "backslashreplace").decode("ascii")


def clip(text: str, limit: int) -> str:
    """The text in at most ``limit`` characters, its middle cut out: names differ at their ends."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"


def _spelled(char: str) -> str:
    if char in _JOINERS or unicodedata.category(char) not in _HIDDEN:
        return char
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
