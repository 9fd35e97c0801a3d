"""Metric points: how they are encoded, stored, compacted, read and downsampled. Imports nothing; see the modules."""
