"""The history of the catalog's schema, run by Alembic from within the program."""
