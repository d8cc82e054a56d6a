"""The fault matrix: whatever happens to Coral or to what it debugs, nothing is lost without a number and nothing is left."""
