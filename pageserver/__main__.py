"""`python -m pageserver`."""

from pageserver.cli import main

main()
