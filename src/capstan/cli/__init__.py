"""The command line: an edge. Parses, calls, prints; decides nothing."""
