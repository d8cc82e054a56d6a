"""What a process says about itself: who it is, what it maps, which service it belongs to. Read from /proc, proc(5)."""
