"""Typed asynchronous clients of the colony and of the agents. Every call has a deadline; every error is a ``CoralError``."""
