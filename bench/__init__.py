"""Benchmarks: ours and the peer in one run, ratios printed; the last line of each is one JSON object of its figures."""
