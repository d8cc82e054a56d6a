"""Commands that bring colony and agent together on this host: ``coral dev``, ``coral trace`` and ``coral doctor``."""
