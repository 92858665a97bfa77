"""Capstan: enterprise tape backup."""

__version__ = "0.1.0"
