"""`trading-ops bot`: what can be done with the built-in paper bot?"""

from __future__ import annotations

import ipaddress
import signal
import socket
import sys
from typing import Annotated

import typer

from trading_ops.cli.parent import UntilStdinEnds, end_with_stdin
from trading_ops.cli.terminal import fail, open_services, reported
from trading_ops.commands import shell

app = typer.Typer(help="The built-in paper bot.", no_args_is_help=True)


@app.callback()
def bot() -> None:
    """The built-in paper bot."""


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; other than this machine only with a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8900,
    bare: Annotated[bool, typer.Option("--bare", help='Answers without the wrapper {"success": true, ...}.')] = False,
    until_stdin_ends: UntilStdinEnds = False,
) -> None:
    """Offer the paper bot over the REST interface, to watch it as one would watch another bot."""
    if until_stdin_ends:
        end_with_stdin()
    services = open_services()
    secret = services.settings.bot_token
    if secret is None and not _is_this_machine(host):
        fail(f"--host {host}: others could stop strategies; set TRADING_OPS_BOT_TOKEN first", code=2)

    import uvicorn

    from trading_ops.bot.server import create_app

    with reported():
        label = services.paper_bot.label
        services.paper_bot.portfolio()  # a bot that cannot trade says so here, and the first answer is quick
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}"
    typer.echo(f"The paper bot ({label} candles) answers on {url}; Ctrl-C stops it. In a second terminal:")
    typer.echo(f"  {shell('export', f'TRADING_OPS_BOT_URL={url}')}")
    if secret is not None:
        typer.echo("  export TRADING_OPS_BOT_TOKEN=...  # the token that is set here")
    token = secret.get_secret_value() if secret else None
    config = uvicorn.Config(
        create_app(services.paper_bot, token=token, wrapped=not bare),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # uvicorn raises the signal again once it has shut down
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        fail(f"cannot listen on {host}, port {port}: {error.strerror}; choose another with --port", code=1)
    return listening


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
