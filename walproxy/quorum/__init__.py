"""The consensus core: votes, terms, appends and the commit position, without I/O, clock or randomness."""
