"""Values that every other package speaks in: no I/O, no clock, nothing but data and its rules."""
