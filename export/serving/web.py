"""uvicorn, with its connections bounded, and a stop that others hear of before it comes."""

from __future__ import annotations

import argparse
import asyncio
import socket
import ssl
import time

import uvicorn

from export.serving import tls
from export.serving.app import Server, make_app
from export.serving.connection import with_limits


class Web(uvicorn.Server):
    """A server that is not ready any more once it is to stop, and goes on for a while.

    Whoever balances loads asks for readiness now and then, and sends requests until it is told: the
    server takes them until ``delay`` is over. Then it takes no more, and ends what is open.

    Args:
        config: uvicorn's.
        server: Its readiness ends with the signal.
        delay: Seconds to go on.
    """

    def __init__(self, config: uvicorn.Config, server: Server, delay: float) -> None:
        super().__init__(config)
        self._delay = delay
        server.halting = lambda: self.should_exit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Go on for the delay, which a second signal ends, and stop."""
        until = time.monotonic() + self._delay
        while not self.force_exit and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.1))
        await super().shutdown(sockets)


def web_server(server: Server, options: argparse.Namespace) -> Web:
    """Return the server for a command line, not yet running.

    Raises:
        ExportError: Options of HTTPS do not go together, or OpenSSL does not take the files.
    """
    limits = server.limits
    config = uvicorn.Config(
        make_app(server),
        host=options.host,
        port=options.port,
        http=with_limits(limits, server.metrics),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=limits.keep_alive_seconds,  # type: ignore[arg-type]
        timeout_graceful_shutdown=limits.drain_seconds,  # type: ignore[arg-type]
        **tls.settings(options),
    )
    try:
        config.load()
    except ssl.SSLError as error:
        raise tls.unusable(error, options) from error
    return Web(config, server, options.stop_delay)
