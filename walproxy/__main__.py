"""`python -m walproxy`."""

from walproxy.cli import main

main()
