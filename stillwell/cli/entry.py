"""Where the command begins: Ctrl-C is answered in one line also while the command line itself is being imported.

That takes a tenth of a second, and a traceback of imports would look like a fault of ours. So nothing else of ours is
imported here before.
"""

import os
import sys


def main() -> None:
    """The entry point."""
    try:
        from stillwell.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("stillwell: interrupted\n")
        sys.stderr.flush()
        # As `main` ends: Python would wait for threads.
        os._exit(130)
