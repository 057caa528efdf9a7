"""The public gRPC listener in front of worker processes that die or hang."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import grpc
import grpc.aio
import pytest

from cluster import KEY, Cluster
from neurogate.api.v1 import worker_pb2 as pb
from neurogate.api.v1 import worker_pb2_grpc
from real_loop import run_real

AUTH = (("authorization", f"Bearer {KEY}"),)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_gone_never_ends_a_proxied_stream_well(signum: int) -> None:
    """Killed, its connection breaks; stopped, only its silence on the link tells."""

    async def main(made: Cluster) -> None:
        port = made.gateway.wait_for("gateway listens")["grpc_port"]
        async with made.client() as client, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await made.until_ready(client)
            stub: Any = worker_pb2_grpc.WorkerStub(channel)  # type: ignore[no-untyped-call]
            status = channel.stream_stream("/neurogate.v1.Worker/GetStatus")

            async def four() -> tuple[list[Any], dict[str, int]]:
                """Streams that wait for a message, and how many of them each worker has."""
                streams = [status(metadata=AUTH) for _ in range(4)]
                states = await made.until(lambda states: sum(state["in_flight"] for state in states) == 4, client)
                return streams, {state["id"]: state["in_flight"] for state in states}

            # A call may go elsewhere as long as the gateway is not connected for it: these see to it that it is.
            for stream in (await four())[0]:
                await stream.write(b"")
                await stream.done_writing()
                assert isinstance(await stream.read(), bytes)
            await made.until(lambda states: all(state["in_flight"] == 0 for state in states), client)
            streams, held = await four()  # the message never comes
            lost = held["worker-0"]
            assert 0 < lost < 4
            made.workers[0].send(signum)

            async def ending(stream: Any) -> grpc.StatusCode:
                try:
                    while await stream.read() is not grpc.aio.EOF:
                        pass
                except grpc.aio.AioRpcError as error:
                    return error.code()
                return grpc.StatusCode.OK

            ends = [asyncio.get_running_loop().create_task(ending(stream)) for stream in streams]
            done: set[asyncio.Task[grpc.StatusCode]] = set()
            while len(done) < lost:
                finished, _ = await asyncio.wait(ends, timeout=15, return_when=asyncio.FIRST_COMPLETED)
                done |= finished
                ends = [task for task in ends if task not in done]
            assert [task.result() for task in done] == [grpc.StatusCode.UNAVAILABLE] * lost
            for task in ends:
                task.cancel()
            await asyncio.wait(ends)
            for stream in streams:
                stream.cancel()
            assert (await stub.GetStatus(pb.StatusRequest(), metadata=AUTH)).ready

    with Cluster(2, gateway={"NEUROGATE_GRPC_PORT": "0"}, NEUROGATE_SIM_DECODE_TPS="5") as made:
        run_real(main(made))
