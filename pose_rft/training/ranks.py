"""How the processes of one training connect, and the messages they exchange besides tensors.

On one machine no other account takes part: the processes rendezvous through a file in a folder that only this account
can read, listen on the loopback interface only, and notice another account that still connects before the first tensor
is sent (`refuse_strangers`). On several machines, the first one's store listens on the address that the user named, in
the network that connects them, and every machine uses its interface in that network. Nothing received over a socket is
unpickled: all but tensors is JSON.
"""

import fcntl
import json
import os
import socket
import struct
from typing import Any

import torch
from torch import distributed

from pose_rft.errors import PoseRftError
from pose_rft.io import sockets

STORE = "POSE_RFT_STORE"  # in the environment of ranks on one machine: their rendezvous file
PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # every launcher sets them
BY_HAND = ("MASTER_ADDR", "MASTER_PORT")  # and these, where there is no STORE
GET_ADDRESS = 0x8915  # SIOCGIFADDR of Linux


def join(backend: str) -> None:
    """Creates the process group: the launcher's, or one with this process alone.

    Raises:
        PoseRftError: a launcher set some of its variables but not all, or another account has connected.
    """
    from deepspeed.constants import default_pg_timeout  # rank 0 may evaluate for a long time while the others wait

    place = {name: os.environ[name] for name in (*PLACE, *BY_HAND, STORE) if name in os.environ}
    if alone := not place.keys() - {STORE}:
        place = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        os.environ |= place  # DeepSpeed reads them, and listens nowhere
    if missing := [name for name in (*PLACE, *(BY_HAND if STORE not in place else ())) if name not in place]:
        raise PoseRftError(
            f"The environment sets {', '.join(place)} but not {', '.join(missing)}; start with torchrun or unset them."
        )
    rank, world = int(place["RANK"]), int(place["WORLD_SIZE"])
    here = alone or STORE in place or int(os.environ.get("LOCAL_WORLD_SIZE", "0")) == world
    interface = "lo" if here else _interface_towards(place["MASTER_ADDR"])
    os.environ |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": f"={interface}"}
    store: distributed.Store | None
    if alone:
        store = distributed.HashStore()
    elif STORE in place:
        store = distributed.FileStore(place[STORE], world)
    elif "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun started by hand has its own store
        store = None
    else:
        store = _store_of_many(place["MASTER_ADDR"], int(place["MASTER_PORT"]), rank, world)
    device = torch.device("cuda", int(place["LOCAL_RANK"])) if backend == "nccl" and world > 1 else None
    given: dict[str, Any] = {} if store is None else {"store": store, "rank": rank, "world_size": world}
    distributed.init_process_group(backend, timeout=default_pg_timeout, device_id=device, **given)
    refuse_strangers()


def refuse_strangers() -> None:
    """Checks which accounts own the peers of this process's loopback connections.

    Any account on the machine can connect there, and gloo does not authenticate; the kernel knows a peer's owner.

    Raises:
        PoseRftError: a peer belongs to another account.
    """
    if others := sockets.strangers():
        raise PoseRftError(
            f"Account {min(others)} of this machine has connected to the training; it was stopped before a number was "
            "exchanged. Ask that account's owner, then run again."
        )


def gather(value: Any, device: torch.device) -> list[Any]:
    """Gathers a JSON value from every rank, in rank order; every rank must call it.

    Floats are preserved bit by bit. It replaces `all_gather_object`, which unpickles whatever it receives.
    """
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
    world = distributed.get_world_size()
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world)]
    distributed.all_gather(sizes, torch.tensor([len(data)], device=device))
    longest = max(int(size) for size in sizes)
    padded = torch.zeros(longest, dtype=torch.uint8, device=device)
    padded[: len(data)] = data
    parts = [torch.zeros_like(padded) for _ in range(world)]
    distributed.all_gather(parts, padded)
    return [json.loads(bytes(part[: int(size)].tolist())) for part, size in zip(parts, sizes, strict=True)]


def _store_of_many(address: str, port: int, rank: int, world: int) -> distributed.TCPStore:
    """Rank 0's store, which listens on `address` only; by default torch would listen on all interfaces."""
    if rank != 0:
        return distributed.TCPStore(address, port, world, is_master=False)
    try:
        listener = socket.create_server((address, port))
    except OSError as error:
        raise PoseRftError(
            f"`launch.address` {address} port {port} cannot be listened on ({error.strerror}); name an address of the "
            "hostfile's first machine."
        ) from None
    port = listener.getsockname()[1]
    return distributed.TCPStore(address, port, world, is_master=True, master_listen_fd=listener.detach())


def _interface_towards(address: str) -> str:
    """This machine's interface in the network of `address`.

    Raises:
        PoseRftError: there is no route to it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # sends nothing: the system only chooses a route
        except OSError as error:
            raise PoseRftError(
                f"No network of this machine leads to `launch.address` {address} ({error.strerror or error})."
            ) from None
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(probe, GET_ADDRESS, struct.pack("256s", name.encode()[:15]))[20:24]
            except OSError:  # it has no address
                continue
            if socket.inet_ntoa(found) == own:
                return name
    raise PoseRftError(f"No interface of this machine has the address {own}, from which {address} would be reached.")
