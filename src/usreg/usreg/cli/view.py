# SPDX-License-Identifier: Apache-2.0
"""`usreg view`: the live page, of a recording without ROS, or of a running graph."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from .show import progress_bar


def view(
    bag: Annotated[
        str,
        typer.Argument(metavar="[BAG]", help="Session (folder or shipped name) or bag; without: a running graph."),
    ] = "",
    port: Annotated[int, typer.Option(help="0: any free one.", min=0, max=65535)] = 8090,
    host: Annotated[
        str, typer.Option(help="Address to listen at; another than loopback prints a token.")
    ] = "127.0.0.1",
    read_only: Annotated[bool, typer.Option("--read-only", help="The page may look, and move the playback.")] = False,
    session: Annotated[str, typer.Option(help="Session that a recording was made of; default: as it says.")] = "",
    register: Annotated[
        bool | None,
        typer.Option("--register/--no-register", help="Register it now; default: where nothing was registered."),
    ] = None,
    rate: Annotated[float, typer.Option(help="Speed of the playback, 0.1 to 8.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end.")] = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the browser.")] = False,
    namespace: Annotated[str, typer.Option(help="Of the running graph (without BAG).")] = "",
    network: Annotated[
        bool, typer.Option("--network", help="The graph may run on another machine (without BAG).")
    ] = False,
) -> None:
    """Show a recording, or a running graph, on a page in the browser, until Ctrl-C."""
    from ..web.server import ViewConfig

    settings = ViewConfig(host=host, port=port, read_only=read_only)
    if bag:
        _view_recording(Path(bag), settings, session, register, rate, loop, open_browser)
        return
    only = {"--session": session, "--register": register is not None, "--loop": loop, "--rate": rate != 1.0}
    if any(only.values()):
        given = ", ".join(name for name, value in only.items() if value)
        raise ConfigError(f"{given} goes with a recording: name the session or the bag to show")
    raise typer.Exit(_view_graph(settings, namespace, network))


def _view_graph(settings: Any, namespace: str, network: bool) -> int:
    try:
        from ..nodes.web_view import run_view
    except ImportError as error:
        raise ConfigError(
            f"ROS 2 is not importable here ({error}); run `make build`, or source your ROS 2 distribution; "
            "`usreg view BAG` shows a recording without it"
        ) from error
    return run_view(settings, namespace, network, typer.echo)


def _view_recording(
    bag: Path, settings: Any, session: str, register: bool | None, rate: float, loop: bool, open_browser: bool
) -> None:
    from ..replay.view.opening import OpenConfig, open_recording
    from ..replay.view.viewer import ReplayViewConfig, Viewer
    from ..web.hub import Hub
    from ..web.server import Server, listen

    if settings.port:
        listen(settings.host, settings.port).close()  # a port in use is known before a long recording is read
    play = ReplayViewConfig(rate, loop, settings.read_only)
    with progress_bar("reading the recording") as progress:
        content = open_recording(bag, OpenConfig(session, register), progress)
    for line in content.told():
        typer.echo(line, err=True)
    hub = Hub()
    viewer = Viewer(content, hub, config=play)
    server = Server(hub, viewer, settings, viewer.files())
    _serve(viewer, server, open_browser)


def _serve(viewer: Any, server: Any, open_browser: bool) -> None:
    """Until Ctrl-C or the signal to terminate; both end everything that was begun."""
    ended = threading.Event()
    before = {s: signal.signal(s, lambda *_: ended.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        url = server.start()
        viewer.start()
        typer.echo(f"{viewer.content.title}: {url}  (Ctrl-C ends)")
        if open_browser:
            import webbrowser

            webbrowser.open(url)
        while not ended.wait(0.5):
            pass
    finally:
        viewer.stop()
        server.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
