"""A labelled corpus of training runs: real trainings of small models, one injected fault or trap each.

    python -m benchmarks.corpus OUT [--seeds N] [--only TEXT] [--part PART] [--jobs N]

Every run is a folder ``OUT/runs/NAME`` with nothing in it but logs (and checkpoints). What it is stands in
``OUT/labels.jsonl``: ``{run, program, part, fault, strength, must, may, true, made, seconds}``. A run that is
there is not made again, so that a pass may be interrupted. README.md has the rules of the labels.
"""
