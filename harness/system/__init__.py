"""Operating-system helpers: atomic files, checksums, temporary folders, signals, text decoding, the code hash.

Knows nothing about recommendation. May import registry and types.
"""
