"""An example of a plugin for Capstan."""
