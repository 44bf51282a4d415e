"""Signals and the end of children, with small processes in place of Dagster and Kafka."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from crypto_assets.cli.processes import family, name_of
from crypto_assets_tests.processes import still_running

CHILD = """
import signal, subprocess, sys, time
# deaf to what a terminal sends, and with a child of its own in another session
for number in (signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
if len(sys.argv) > 1: subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True)
print('started', flush=True)
time.sleep(600)
"""
COMMAND = f"""
import subprocess, sys, threading, time
from crypto_assets.cli.processes import Supervised, owned_children
from crypto_assets.cli.signals import interruptible, stop_requested
CHILD = {CHILD!r}
how = sys.argv[1]
def start():
    child = subprocess.Popen(
        [sys.executable, '-c', CHILD, CHILD], stdout=subprocess.PIPE, start_new_session=True
    )
    child.stdout.readline()
    return child
if how == 'interrupted':
    with interruptible(), owned_children():
        child = start()
        try:
            print('ready', flush=True)
            time.sleep(600)
        finally:
            print('cleaning', flush=True)
            child.kill()
with stop_requested() as stop, owned_children():
    child = start()
    print('ready', flush=True)
    while not stop.wait(0.0001):  # most of the time this thread holds the event's own lock
        pass
    print(f'asked {{stop.number}}', flush=True)
    if how == 'hung':
        lock = threading.Lock()
        with lock, lock:
            pass
"""


class Command:
    """The small command above, started as a shell starts one, or in a terminal of its own."""

    def __init__(self, how: str, *, terminal: bool = False, ignoring: str = "") -> None:
        program = [sys.executable, "-c", COMMAND, how]
        if ignoring:
            program = ["bash", "-c", f'trap "" {ignoring}; exec "$0" "$@"', *program]
        if terminal:
            spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
            program = [sys.executable, "-c", spawn, *program]
        # A test run under `nohup` ignores SIGHUP, and children inherit that.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.process = subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.await_line("ready")
        self.itself = psutil.Process(self.process.pid)
        if terminal:
            (self.itself,) = self.itself.children()
        self.name = name_of(self.itself)
        self.children = self.itself.children(recursive=True)

    def await_line(self, text: str) -> None:
        assert self.process.stdout
        said = b""
        while text.encode() not in said:
            line = self.process.stdout.readline()
            assert line, f"it ended without {text!r}: {said.decode()}"
            said += line

    def type(self, keys: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(keys)
        self.process.stdin.flush()

    def left(self) -> list[str]:
        """What still runs of all that it started, once that has had time to end."""
        return still_running(self.children, within_s=60) + still_running(family(self.name))


@pytest.fixture
def start() -> Iterator[type]:
    started: list[Command] = []

    def make(*args, **kwargs) -> Command:
        started.append(Command(*args, **kwargs))
        return started[-1]

    yield make  # type: ignore[misc]
    for command in started:
        for process in [*family(command.name), command.itself]:
            if process.is_running():
                process.kill()
        command.process.wait(30)
        for stream in (command.process.stdin, command.process.stdout):
            stream.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_nothing_is_left(start, number):
    command = start("orderly", ignoring="INT")
    os.killpg(command.process.pid, number)
    command.await_line(f"asked {number.value}")
    assert command.process.wait(60) == 0
    assert command.left() == []


def test_a_storm_of_signals_is_one_request(start):
    command = start("orderly")
    while command.process.poll() is None:  # until the very end, also after the request has been answered
        os.kill(command.process.pid, signal.SIGHUP)
    assert command.process.returncode == 0
    assert command.left() == []


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_what_hangs(start, second):
    command = start("hung")
    os.kill(command.process.pid, signal.SIGINT)
    command.await_line("asked 2")
    while command.process.poll() is None:  # one that comes within a tenth of a second is the first again
        os.kill(command.process.pid, second)
        try:
            command.process.wait(0.3)
        except subprocess.TimeoutExpired:
            continue
    assert command.process.returncode == 128 + second
    assert command.left() == []


def test_ctrl_c_twice_in_a_terminal(start):
    command = start("hung", terminal=True)
    command.type(b"\x03")
    command.await_line("asked 2")
    while command.process.poll() is None:
        command.type(b"\x03")
        try:
            command.process.wait(0.3)
        except subprocess.TimeoutExpired:
            continue
    assert command.process.returncode == 128 + signal.SIGINT
    assert command.left() == []


def test_a_closed_terminal_is_a_request_that_nohup_takes_away(start):
    command = start("orderly", ignoring="HUP")
    os.kill(command.process.pid, signal.SIGHUP)
    os.kill(command.process.pid, signal.SIGTERM)
    command.await_line("asked 15")
    assert command.process.wait(60) == 0


@pytest.mark.parametrize("how", ["orderly", "interrupted"])
def test_a_killed_command_leaves_nothing(start, how):
    command = start(how)
    (between,) = [p for p in command.children if p.children()]
    between.kill()  # what it started has lost its parent
    command.process.kill()
    command.process.wait(30)
    assert len(command.children) >= 3
    assert command.left() == []


def test_an_interrupt_is_one_line_after_the_cleaning(start):
    command = start("interrupted")
    os.kill(command.process.pid, signal.SIGTERM)
    command.await_line("cleaning")
    command.await_line("error: interrupted by SIGTERM")
    assert command.process.wait(60) == 128 + signal.SIGTERM
    assert command.left() == []
