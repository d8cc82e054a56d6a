"""Images of many kinds, and what Coral says of every function in them against what objdump says. Run by ``make corpus``."""
