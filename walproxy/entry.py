"""The program `walproxy`. What must start fast is answered before what the other commands need is loaded."""

import os
import signal
import sys

from walproxy.inspect.waldump.asked import arguments_for

_INTERRUPTED = 130  # As the shell has it, and typer once it runs.


def main() -> None:
    """Run the command line, and end with the code that says how."""
    if sys.argv[1:2] == ["inspect"] and (arguments := arguments_for(sys.argv[2:])) is not None:
        from walproxy.inspect.waldump.run import run  # noqa: PLC0415 - see above

        # Whoever reads half of the output and leaves ends us without a word, as with any filter.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        sys.exit(run(arguments, os.environ, sys.stdout.buffer, sys.stderr.write))
    try:
        from walproxy import cli  # noqa: PLC0415 - see above

        cli.main()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
