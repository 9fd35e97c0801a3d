"""Benchmarks: ours and the peer in one run, ratios printed; the last line of each is one JSON object of its figures."""

from worker.training.waiting import let_threads_sleep

let_threads_sleep()  # as the trainers; before torch is loaded
