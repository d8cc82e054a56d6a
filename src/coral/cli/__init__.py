"""The command line: parse, call the colony's client, render. Nothing here is imported for a help page but click."""
