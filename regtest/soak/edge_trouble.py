"""What happens to the primary, Redis, the edges and the balancer in the soak of edges.

Each trouble is a generator: where it yields, payments and blocks go on, and then it is ended. It
says which parts of the whole it needs for itself, so that others may begin meanwhile.
"""

import contextlib
import signal
import time

import payments
from edge_check import Log
from edge_parts import copy
from process import Failure, wait_until

"""Longer than a client is taken for one that follows."""
LONG_STALL = 6.0


def edge_kill(soak):
    edge = soak.some_edge()
    edge.kill()
    yield
    edge.launch()


def edge_terminate(soak):
    edge = soak.some_edge()
    # Before it has said anything it does not hear of signals.
    log = edge.folder / f"log.{edge.starts:03}"
    wait_until("the edge is there", lambda: log.stat().st_size)
    edge.terminate()
    yield
    edge.launch()


def edge_freeze(soak):
    edge = soak.some_edge()
    edge.process.child.send_signal(signal.SIGSTOP)
    yield
    edge.process.child.send_signal(signal.SIGCONT)


def redis_kill(soak):
    """It comes back with all that it had."""
    soak.redis.master.save()
    soak.redis.master.kill()
    yield
    soak.redis.master.start()


def redis_kill_late(soak):
    """It comes back without its tail."""
    soak.redis.master.save()
    yield
    soak.redis.master.kill()
    yield
    soak.redis.master.start()


def redis_kill_empty(soak):
    soak.redis.master.kill()
    soak.redis.master.forget()
    yield
    soak.redis.master.start()


def redis_flush(soak):
    soak.redis.master.ask("FLUSHALL")
    yield


def redis_freeze(soak):
    soak.redis.master.process.child.send_signal(signal.SIGSTOP)
    yield
    soak.redis.master.process.child.send_signal(signal.SIGCONT)


def replica_promoted(soak):
    """It has lost what came since it was cut off."""
    soak.redis.detach()
    yield
    soak.redis.promote()
    yield
    soak.redis.follow()


def stream_trimmed(soak):
    """Behind a client that takes nothing, and an edge that stands still."""
    edge = soak.some_edge()
    soak.slow.stall(60)
    edge.process.child.send_signal(signal.SIGSTOP)
    payments.flood(soak.world)
    yield
    soak.world.ledger.refresh()
    payments.flood(soak.world)
    begin = time.monotonic()
    with contextlib.suppress(Failure):
        n = soak.redis.master.ask("HGET", soak.key, "current")
        soak.redis.master.ask("XTRIM", f"{soak.key}:{n}", "MAXLEN", soak.random.randrange(1, 20))
    yield
    edge.process.child.send_signal(signal.SIGCONT)
    time.sleep(max(0, begin + LONG_STALL - time.monotonic()))
    soak.slow.flow()


def primary_kill(soak):
    soak.primary.kill()
    keep_copy(soak)
    yield
    soak.primary.start()


def primary_freeze(soak):
    soak.primary.process.child.send_signal(signal.SIGSTOP)
    yield
    soak.primary.process.child.send_signal(signal.SIGCONT)


def primary_terminate(soak):
    soak.primary.terminate()
    keep_copy(soak)
    yield
    soak.primary.start()


def keep_copy(soak):
    """To be put back when there is a newer one."""
    if soak.random.random() < 0.6:
        copy(soak.newest, soak.kept)
        copy(soak.primary.folder / "store", soak.newest)


def primary_restored(soak):
    """An older copy of its folder is put back. What the log was that ends here says the folder that
    was there, read by a daemon that neither follows the node nor writes to Redis.
    """
    primary, asked = soak.primary, soak.primary.settings
    primary.kill()
    quiet = {name: text for name, text in asked.items() if name != "bus.url"}
    primary.settings = {**quiet, "monitor.autostart": "false", "server.listen": soak.aside}
    primary.start()
    soak.logs[-1].read(primary)
    primary.kill()
    primary.settings = asked
    copy(soak.kept, primary.folder / "store")
    yield
    primary.start()
    soak.logs.append(Log().read(primary))


def balancer_restart(soak):
    soak.balancer.kill()
    yield
    soak.balancer.start()


def clients_move(soak):
    """Some that have several places leave the one where they are."""
    movers = [it for it in soak.crowd.clients if len(it.urls) > 1 and hasattr(it, "leave")]
    for client in soak.random.sample(movers, min(3, len(movers))):
        soak.crowd.leave(client)
    yield


TROUBLES = {
    edge_kill: ("edge",),
    edge_terminate: ("edge",),
    edge_freeze: ("edge",),
    redis_kill: ("redis",),
    redis_kill_late: ("redis",),
    redis_kill_empty: ("redis",),
    redis_flush: ("redis",),
    redis_freeze: ("redis",),
    replica_promoted: ("redis",),
    stream_trimmed: ("redis", "edge", "slow"),
    primary_kill: ("primary",),
    primary_freeze: ("primary",),
    primary_terminate: ("primary",),
    primary_restored: ("primary",),
    balancer_restart: ("balancer",),
    clients_move: (),
}
