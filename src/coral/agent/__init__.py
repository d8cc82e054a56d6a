"""The daemon of a host: resolves services and functions, attaches probes, keeps what they report, and lets go in time."""
