"""Audits of whole histories of runs: what is known of them is kept, and only what changed is read."""
