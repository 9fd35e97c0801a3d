"""`make chaos`: the real service, killed at random, and a verdict on what it did. Not a test by itself.

installation    the real processes in a folder of their own, brought back when they die
specs           what the jobs train
stream          submits jobs over HTTP and watches them
references      the same specs, trained without service and without interruption
witness         which trainers compute, as the kernel says
mischief        what is done to whom, and when
phases          kills in a phase of a job that is proved
verdict         what the service says in the end, beside witness and references
"""
