"""Coral: a live debugger for production services."""
