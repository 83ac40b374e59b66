"""`walproxy inspect --format=pg_waldump`: the command line, output and errors of pg_waldump, for every major."""
