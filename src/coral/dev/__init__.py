"""``coral dev``: a colony and an agent on this host, as children of one command."""
