"""Carries sheetbend between WebSocket and TCP with the package `websockets`, to try our ends against it.

    relay.py serve 127.0.0.1:4433     a WebSocket server in front of a TCP server; prints its address
"""
import asyncio, sys
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

async def relay(ws, target):
    host, port = target.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))

    async def down():
        while data := await reader.read(65536):
            await ws.send(data)
        await ws.close()

    task = asyncio.create_task(down())
    try:
        async for message in ws:
            writer.write(message)
            await writer.drain()
    except ConnectionClosed:
        pass
    writer.close()
    task.cancel()

async def main():
    target = sys.argv[2]
    handler = lambda ws: relay(ws, target)
    async with serve(handler, "127.0.0.1", 0, subprotocols=["sheetbend.v1"], max_size=None) as server:
        print("listening on %s:%d" % server.sockets[0].getsockname()[:2], flush=True)
        await asyncio.Future()

asyncio.run(main())
