"""Every write to a job, and nothing else.

    transitions   the only place where `job.state` is assigned; each move writes its event
    caller        in whose name a request writes
    lease         what a worker holds, and the fence that each of its writes carries
    submit        a new job                           (api)
    asked         what the next three have in common
    cancel        a user's wish that a job end        (api)
    pause         ... that it be held, and go on      (api)
    retry         ... that it be tried again          (api)
    check         a replay of a part of a job         (api; claim reads what it is)
    claim         the best due job for a worker       (worker)
    work          what the holder of a lease writes   (worker)
    checkpoints   the holder's checkpoints            (worker)
    crash         what follows a crashed attempt      (work, reap)
    reap          attempts whose holder is gone       (worker)
    workers       the list of worker processes        (worker)

Every function takes a Connection inside a transaction that the caller, an edge, commits. All times are the
database's (`clock_timestamp()`: `now()` is the transaction's start, too old for a lease). Row locks are FOR NO KEY
UPDATE; a transaction waits for one job's lock at most, and `reap` skips what is locked, so nothing here can deadlock.
"""
