"""The Prefect server that a flow at the terminal starts for itself, where none is named."""

import signal

START_SECONDS = 180  # Prefect's own 20 are too few for a first start on a busy machine


def start_server() -> None:
    """Ahead of the flow, with Ctrl-C blocked, which a child inherits: a terminal sends it to the whole group, the server would be
    gone before the flow has told it how it ended, and Prefect's client asks a dead server for minutes."""
    from prefect.settings import get_current_settings

    if get_current_settings().api.url:
        return
    from prefect.server.api.server import SubprocessASGIServer  # imports the whole server

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        SubprocessASGIServer().start(START_SECONDS)  # one a process: the flow finds it, and a regular end of ours ends it
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
