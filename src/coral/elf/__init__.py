"""What a file on disk says: its image, symbols and functions, and where a function can be probed.

A daemon imports ``image`` and ``parser`` only. Everything else runs in the worker process that ``parser`` keeps warm,
because files are written by others: parsing them is bounded in memory and time there, and can crash nobody.
"""
