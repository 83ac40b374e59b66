"""`python -m walproxy`."""

from walproxy.entry import main

main()
