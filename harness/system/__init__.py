"""The machine under the bench: atomic files, checksums, temporary folders, signals, text decoding, the code hash.

Knows nothing of the field. May import registry and types.
"""
