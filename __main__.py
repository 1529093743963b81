"""``python -m lisabench`` and the command ``lisabench``: the command line."""

import signal

# Imports take a fifth of a second, in which an interrupt would print a traceback. Until the door
# stands, it ends this process without one, as other signals do.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from .cli import main

if __name__ == "__main__":
    main()
