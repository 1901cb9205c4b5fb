"""Search programs: one file each."""
