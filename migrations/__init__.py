"""Alembic's migrations, inside the package so that an installed traind can migrate its database.

A migration is never edited once released, sets no long locks, and keeps the previous release running.
"""

ONE_AT_A_TIME = 0x7472_6169_6E64
"""Key of the advisory lock that a migrating process holds: "traind" in ASCII."""
