"""A labelled corpus of training runs: real trainings of small models, one injected fault or trap each.

    python -m benchmarks.corpus OUT [--seeds N] [--only TEXT] [--jobs N]

Every run is a folder ``OUT/runs/NAME`` with nothing in it but logs (and checkpoints). What it is stands in
``OUT/labels.jsonl``: ``{run, program, part, fault, strength, must, may, ...}``.

Rules of the labels
-------------------

1. A label says what is there, decided by how the run was made and by what its complete curves show: every
   step's training loss, and the loss on a large clean held-out set after every epoch, whatever was logged of
   them. No label is taken from the analyzer or uses its features.
2. ``must``: the diagnosis of the injected fault. A fault that does not show (``Fault.shows``: the model
   learned in spite of it) makes no run: it is dropped and counted. Alternatives joined by ``|`` are names
   for one fact of which one suffices (an exploding rate is ``loss-divergence`` or ``lr-too-high``).
3. ``may``: what would also be right: consequences of the fault, and coarser or finer names. Neither asked
   for nor counted as false. Remarks without a fault (``converged``, ``no-early-stopping``,
   ``clipping-saturated``, ``low-rank-layer``, ``log-damaged``) may always be made.
4. Curves show more than what was injected. ``overfitting`` is added to ``must`` where the true held-out loss
   ends by 30 % of its best fall above its best while training goes on falling and a held-out loss was logged
   (unless the fault permits it anyway), to ``may`` from 5 % on; ``nan-loss`` to ``must`` where a training loss
   is not finite; ``undertrained`` to ``may`` where the last quarter of the run brought 3 % of the whole way.
5. A fault is only asked for where it can be seen: what it ``needs`` is always logged.
6. *Healthy* is a run without a fault that went at least two thirds of the way of an ordinary run, overfits
   by less than 10 % and fell by less than 4 % in its last quarter; others are dropped. Its ``must`` and
   ``may`` are empty but for rule 4.
7. A program, a pair of task and model, is in the ``tune`` part or in the ``report`` part. Only runs of ``tune``
   are looked at when rules are changed; figures to be quoted come from ``report``.
"""
