"""A child process of the soak: started, ended by its own id only, its output in a file."""

import os
import signal
import subprocess
import time


class Failure(Exception):
    """The soak itself cannot go on."""


def wait_until(what, condition, seconds=60.0, pause=0.02):
    """Waits for a truthy answer, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds:.0f} seconds in vain: {what}")
        time.sleep(pause)


class Process:
    def __init__(self, command, output, environment=None, folder=None):
        with open(output, "ab") as log:
            # A session of its own: Ctrl-C reaches only the soak, which then ends its children in
            # order.
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )

    def runs(self):
        return self.child.poll() is None

    def kill(self):
        self.child.kill()
        self.child.wait()

    def ask_to_end(self, seconds=60):
        """SIGTERM, and its exit code."""
        self.child.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds=60):
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(
                f"process {self.child.args[0]} did not end within {seconds} seconds"
            ) from None


def free_port():
    """A port below the range that the kernel hands out by itself."""
    import random
    import socket

    choice = random.Random(os.urandom(8))
    for _ in range(200):
        port = choice.randrange(10_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failure("no free port on 127.0.0.1")
