"""Makers of hostile files. Each is written by hand, opcode by opcode, into a test's own folder."""
