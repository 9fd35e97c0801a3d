"""Alembic's migrations, inside the package so that an installed traind can migrate its database.

A migration is never edited once released, sets no long locks, and keeps the previous release running.
"""
