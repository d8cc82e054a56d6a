"""What the colony remembers: two DuckDB files, one for control and audit, one for events."""
