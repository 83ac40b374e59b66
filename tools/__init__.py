"""What the Makefile, the tests, the demo and the benchmarks share. Not part of the wheel."""
