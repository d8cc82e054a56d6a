"""The keys of the metadata that calls carry: what clients and servers have to agree on. Imports nothing."""

from __future__ import annotations

ACTOR_KEY = "coral-actor"
"""Who calls, as far as the caller itself knows. Believed only where nobody is authenticated."""

COLONY_KEY = "coral-colony"
"""Of a colony's calls to its agents: what it starts it also ends, what others start is left to them."""

AUTHORIZATION_KEY = "authorization"
"""A user's credential, ``Bearer TOKEN`` (RFC 6750, section 2.1)."""

COMMAND_KEY = "coral-command-bin"
"""A colony's signature of what it wants of an agent; see ``coral.trust.commands``."""
