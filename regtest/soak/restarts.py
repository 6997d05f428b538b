"""Operations on the processes, on the watch list and on the feed."""

import signal
import threading
import time

from process import Failure


def node_restart(world, *extra):
    world.witness.restarted()
    world.node.stop()
    pause = world.random.choice((0, 0, 1.5, 4))
    time.sleep(pause)
    world.node.start(*extra)
    world.witness.restarted()
    world.say(f"node restarted {' '.join(extra)}, {pause} s away")


def node_restart_forgetting(world):
    """Its mempool is empty then."""
    node_restart(world, "-persistmempool=0")


def node_kill(world):
    """It loses the blocks since it last wrote to disk, and finds an older mempool."""
    world.witness.restarted()
    world.node.kill()
    world.node.start()
    world.witness.restarted()
    world.say("node killed and started")


def node_reindex(world):
    """It builds its state anew from its blocks, and shows lower tips meanwhile."""
    node_restart(world, "-reindex-chainstate")


def node_freeze(world):
    freeze(world, world.node, "node")


def daemon_freeze(world):
    freeze(world, world.daemon, "daemon")


def freeze(world, part, name):
    seconds = world.random.choice((0.5, 1, 3))
    part.process.child.send_signal(signal.SIGSTOP)
    world.daemon.moments.append(time.time())
    time.sleep(seconds)
    world.daemon.moments.append(time.time())
    part.process.child.send_signal(signal.SIGCONT)
    world.say(f"{name} frozen for {seconds} s")


def daemon_kill(world):
    """And started at once, or some operations later."""
    world.read_events()
    world.daemon.kill()
    world.say("daemon killed")
    _back_now_or_later(world)


def daemon_kill_amid(world, operation):
    """Killed at some moment of another operation."""
    world.read_events()
    victim = world.daemon.process
    killer = threading.Timer(world.random.random() * 0.5, victim.child.kill)
    killer.start()
    world.say(f"daemon will be killed during {operation.__name__}")
    operation(world)
    killer.join()
    if victim.wait() != -signal.SIGKILL:
        raise Failure(f"the daemon ended by itself with {victim.child.returncode}")
    world.daemon.forget()
    _back_now_or_later(world)


def daemon_terminate(world):
    world.read_events()
    world.daemon.terminate()
    world.say("daemon terminated")
    _back_now_or_later(world)


def _back_now_or_later(world):
    later = world.random.choice((0, 0, 1, 2, 5))
    if later:
        world.daemon_back = world.step + later
    else:
        daemon_start(world)


def daemon_start(world):
    world.daemon.start()
    world.daemon_back = None
    world.say("daemon started")
    # Now and then it is killed while it still starts.
    if world.random.random() < 0.25:
        time.sleep(world.random.random() * 0.3)
        world.daemon.kill()
        world.daemon.start()
        world.say("daemon killed at its start, and started")
    world.read_events(again=True)


def watch_late(world):
    """An address that may have a past."""
    if not world.unwatched:
        return watch_new(world)
    address = world.unwatched.pop(world.random.randrange(len(world.unwatched)))
    world.late.add(address.text)
    return _watch(world, [address])


def watch_new(world):
    """An address without a past; and more of those that are paid before they are watched."""
    made = world.new_addresses(2)
    world.unwatched.remove(made[0])
    _watch(world, made[:1])


def watch_bulk(world):
    """Several at once, some of which are watched already."""
    world.new_addresses(1)
    count = min(len(world.unwatched), world.random.randrange(1, 4))
    chosen = [
        world.unwatched.pop(world.random.randrange(len(world.unwatched))) for _ in range(count)
    ]
    body = [address.text for address in [*chosen, world.random.choice(world.watched)]]
    answer = world.daemon.post("/add_addresses", {"addresses": body})
    world.say(f"watch {body}: {answer['message']}")
    world.late.update(address.text for address in chosen)
    world.watched += chosen


def _watch(world, addresses):
    for address in addresses:
        answer = world.daemon.post("/add_address", {"address": address.text})
        world.say(f"watch {address.text}: {answer['message']} {answer['coverage']}")
    world.watched += addresses


def stop(world):
    if world.stopped:
        return start(world)
    world.say(world.daemon.post("/stop", {})["message"])
    world.stopped = True
    return None


def start(world):
    world.say(world.daemon.post("/start", {})["message"])
    world.stopped = False


def both_restart(world):
    """The daemon starts while there is no node."""
    world.read_events()
    world.witness.restarted()
    world.daemon.kill()
    world.node.kill() if world.random.random() < 0.5 else world.node.stop()
    world.daemon.start()
    time.sleep(world.random.choice((0, 1)))
    world.node.start()
    world.witness.restarted()
    world.say("both ended, the daemon started first")
    world.read_events(again=True)


def lag(world):
    """All messages of the coming moments come late."""
    seconds = world.random.choice((0.3, 1, 2))
    world.proxy.hold(seconds)
    world.say(f"messages held for {seconds} s")


def slow_rpc(world):
    """Answers of the node to the daemon come late."""
    seconds = world.random.choice((1, 3))
    world.rpc_proxy.slow(seconds)
    world.say(f"answers of the node late for {seconds} s")


def bad_rpc(world):
    """Answers of the node to the daemon break off."""
    seconds = world.random.choice((0.5, 2))
    world.rpc_proxy.bad(seconds)
    world.say(f"connections to the node break for {seconds} s")


def feed_breaks(world):
    world.proxy.break_connection()
    world.say("connection broken")


def silence(world):
    """All messages of the coming moments are lost, the last ones too."""
    seconds = world.random.choice((0.3, 1, 2))
    world.proxy.mute(seconds)
    world.say(f"silence for {seconds} s")
