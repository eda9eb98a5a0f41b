"""`towtank ui`: the local page."""

from pathlib import Path
from typing import Annotated

import typer

from towtank.cli.failure import InputError

EXAMPLES = """\
\b
Examples:
  towtank ui
  towtank ui --port 8080 --no-browser

\b
The page is for this computer alone: it listens on 127.0.0.1, answers no other site, and reads files only inside of
the folder that it was started in. Ctrl-C ends it and its searches.
"""


def ui(
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port; 0: any that is free.")
    ] = 8765,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open the page in a browser.")
    ] = False,
) -> None:
    """Serve a page on this computer to predict, tune and open reports in a browser."""
    from towtank.cli.text import emit
    from towtank.pages.local.server import ADDRESS, listen, serve

    try:
        folder = Path.cwd()
    except OSError as error:
        raise InputError("the folder that this was started in has gone; start it in another") from error
    try:
        sock = listen(port)
    except OSError as error:
        raise InputError(
            f"--port {port}: {error.strerror}; choose another, or 0 for any that is free"
        ) from error
    address = f"http://{ADDRESS}:{sock.getsockname()[1]}/"
    emit(f"towtank is at {address} (Ctrl-C ends it)")
    if not no_browser:
        import webbrowser

        webbrowser.open(address)
    try:
        serve(sock, folder)
    except KeyboardInterrupt:
        emit("ended")
