"""Imported first by the fork server: it outlives a signal to all processes of the pipeline.

``timeout`` and others send SIGTERM to a whole group. The stages are to save and stop then, which
the server's end would prevent; it ends with the pipeline in any case.
"""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, while the server still imports
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})  # held until here
