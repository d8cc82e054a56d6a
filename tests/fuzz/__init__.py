"""Files that nobody meant to write: mutated and absurd ELF images, and what reading them costs. See ``make fuzz``."""
