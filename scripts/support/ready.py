"""The last `-s` of a mitmproxy that another program waits for: it says when start-up is over.

mitmproxy prints `listening at` before it looks whether anything went wrong, and then may still
end. This prints one more line after that look. It touches no traffic.
"""

import asyncio
import logging

from mitmproxy import ctx


def running() -> None:
    asyncio.get_running_loop().create_task(_tell())


async def _tell() -> None:
    errorcheck = ctx.master.addons.get("errorcheck")
    # Uninstalled once mitmproxy is satisfied; when it is not, this ends with the process.
    while errorcheck is not None and errorcheck.logger in logging.getLogger().handlers:
        await asyncio.sleep(0)
    logging.getLogger(__name__).info("start-up is over")
