"""`serve`: the REST API of a home, without Dagster, until Ctrl-C."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from crypto_assets.cli import output
from crypto_assets.cli.signals import stop_requested
from crypto_assets.errors import SUCCESS

if TYPE_CHECKING:
    from crypto_assets.settings import Settings

PORT = 3001


def run(settings: Settings) -> int:
    """Serve until a signal.

    Args:
        settings: Settings of an existing home; `api_host` and `api_port` say where.

    Returns:
        Exit code.

    Raises:
        UsageError: What the settings ask for is not served, or not without a token.
        HomeError: There is no home.
        CannotListen: The address cannot be listened on.
    """
    from crypto_assets.home import existing_home
    from crypto_assets.serving import server

    server.refuse_unservable(settings)
    home = existing_home(settings)
    listening = server.listen(settings.api_host, settings.api_port or PORT)
    api = server.ApiServer(settings, home, listening)
    with stop_requested() as asked:
        output.say(settings.source_facts.banner, style="bold")
        output.say(f"api   {server.address(listening)}   (page at /, documentation at /docs; Ctrl-C stops it)")

        def stop() -> None:
            asked.wait()
            api.stop()

        threading.Thread(target=stop, name="stop", daemon=True).start()
        api.run()
    return SUCCESS
