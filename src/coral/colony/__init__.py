"""The control plane: who runs what, sessions over every host, and their events, stored once."""
