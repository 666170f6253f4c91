"""Runs commands in a process of their own whose memory is limited, and measures what they take of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from helpers.child_processes import WAIT_S

CODE = """
import contextlib, json, resource, sys
from typer.testing import CliRunner
import numpy, SimpleITK, pydicom, pydicom.pixels, torch
from NLSTSegLib.cli.app import app
import NLSTSegLib.inference.lung_field, NLSTSegLib.models.bundle, NLSTSegLib.checks.preflight, NLSTSegLib.reading.read

def status_kb(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))

limit = status_kb("VmSize") * 1024 + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for arguments in json.loads(sys.argv[2]):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before_kb = status_kb("VmRSS")
    done = CliRunner().invoke(app, arguments)
    taken_mb = (status_kb("VmHWM") - before_kb) / 1024
    print(json.dumps([done.exit_code, done.stderr, taken_mb]), flush=True)
"""


def can_limit_memory() -> bool:
    """Whether this system tells a process how much memory it takes, and limits it: Linux."""
    return Path("/proc/self/clear_refs").exists()


def run_limited(commands: list[list[str]], limit_bytes: int) -> list[tuple[int, str, float]]:
    """Exit code, stderr and MB taken of every command of the command line (without its name), one after the other.

    ``limit_bytes`` is the address space they may take beyond that of the loaded libraries.
    """
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CODE, str(limit_bytes), json.dumps(commands)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_S)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if len(lines) != len(commands):
        raise AssertionError(f"{commands[len(lines)]} ended the process ({done.returncode}): {done.stderr[-1000:]}")
    return [(code, text, taken_mb) for code, text, taken_mb in lines]
