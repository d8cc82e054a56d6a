"""What the kernel does for Coral: programs, maps, links and rings. Knows nothing of files' contents, services or the wire."""
