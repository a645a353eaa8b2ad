"""What a training script printed: lines, the words and numbers in them, progress bars, steps, curves.

lines -> entries (words, dicts, bars) -> steps -> curves
"""
