"""Rows of the SQL catalog; private to capstan.catalog."""
