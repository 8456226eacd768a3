"""A model server that is no bottleneck: it reads a request to its end and says one thing."""

from __future__ import annotations

import asyncio
import json
import sys

SAID = {"role": "assistant", "content": "All is quiet."}
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1764000000,
        "model": "stand-in",
        "choices": [{"index": 0, "message": SAID, "finish_reason": "stop"}],
    }
).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Model(asyncio.Protocol):
    """HTTP/1.1 with Content-Length, which is what clients of the benchmark send."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = b""
            self._left = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        self._left -= len(data)
        if not self._left:
            self._transport.write(HEAD % len(ANSWER) + ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Model, "127.0.0.1", 0)
    sys.stdout.write(f"sink at 127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
