"""Who may come in to the colony, and what for: actions, identities, and the guard that puts them together."""
