"""How fast the library and the rehearsal are: `python -m benchmarks` prints a table."""
