"""The files of a set as one table.

One Parquet table of the files of a set, in the same form on tape and beside the catalog, searched by DuckDB.
"""
