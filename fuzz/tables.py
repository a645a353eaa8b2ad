"""Coverage-guided fuzzing of the reader of CSV and TSV tables, with atheris.

    python fuzz/tables.py /tmp/corpus -max_total_time=600

Whatever the bytes are, a table is read or refused with a reason: no exception of any other kind, and
columns of equal length.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["analyzer"]):
    from analyzer.errors import IngestError
    from analyzer.ingest import HEAD_BYTES, delimited

PIECES = [
    *(b"epoch,loss,val_loss\n", b"step\tloss\n", b"1,0.5,0.25\n", b"2;0,5;1e-3\n", b"nan,inf,-inf\n"),
    *(
        b"\xef\xbb\xbf",
        b"\r\n",
        b'"a,b"',
        b"# comment\n",
        b"{}\n",
        b" , ",
        b"\0",
        b"\n",
        b"True,,\n",
        b"\xff",
    ),
]
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-tables-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def table(program: atheris.FuzzedDataProvider) -> bytes:
    """Pieces of tables and any bytes, in any order, some many times."""
    out = bytearray()
    while program.remaining_bytes() and len(out) < 20_000:
        if program.ConsumeBool():
            out += program.PickValueInList(PIECES) * program.ConsumeIntInRange(1, 60)
        else:
            out += program.ConsumeBytes(program.ConsumeIntInRange(1, 40))
    return bytes(out)


def one_input(data: bytes) -> None:
    program = atheris.FuzzedDataProvider(data)
    path = FOLDER / ("log.tsv" if program.ConsumeBool() else "metrics.csv")
    content = table(program)
    path.write_bytes(content)
    delimited.claims(path, content[:HEAD_BYTES])
    try:
        reading = delimited.read(path)
    except IngestError as error:
        assert str(path) in str(error)
        return
    for series in reading.series:
        assert len(series.steps) == len(series.values)
        assert series.wall_times is None or len(series.wall_times) == len(series.values)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
