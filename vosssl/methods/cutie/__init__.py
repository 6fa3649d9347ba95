"""Cutie: pixels read from memory, refined by a transformer over a few queries per object; one file a part."""
