"""Settings of the daemons, where each value came from, and where Coral keeps its files."""
