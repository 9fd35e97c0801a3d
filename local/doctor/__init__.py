"""`traind doctor`: looks at everything the service stands on, and says of each what is wrong and what mends it.

    findings   what a check says: ok, a warning or an error, and the fix
    target     which servers, which folders: those of the settings, or of a data folder
    server     Postgres: reachable, version, pooler, rights, room, durability, migrations
    doorbell   Redis
    machine    this machine: clock, versions, kernel, GPU
    disks      the room that is left
    fleet      workers, stuck jobs, garbage
    examine    all of them, in order; one that cannot go on does not stop the others

It only reads. `local.care` is the command. This file imports nothing.
"""
