"""Runs programs that may open no socket, and tells whether they tried.

Two guards: one in Python (an audit hook, which tells what was tried), and on Linux one in the kernel (seccomp, which also
binds C libraries and all children, and ends the process that tries). Sockets between processes of this computer (AF_UNIX) are
allowed by the second alone, since the C library asks such for the name of the user.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

TRIED_FILE = "tried.txt"

GUARD = '''
import ctypes, os, platform, struct, sys

EVENTS = ("socket.", "urllib.", "http.client.", "ftplib.", "smtplib.", "imaplib.", "poplib.", "nntplib.", "telnetlib.",
          "webbrowser.")
HARMLESS = ("socket.gethostname",)
tried = os.environ["NLSTSEG_TEST_TRIED"]

def guard(event, arguments):
    if event.startswith(EVENTS) and event not in HARMLESS:
        with open(tried, "a") as file:
            print(event, arguments, file=file)
        raise PermissionError(f"no network here: {event}")

sys.addaudithook(guard)

# pydicom imports it where it is, and its urllib3 then makes a socket to learn whether this computer speaks IPv6. What an
# extra brings is nobody's but that extra's: without it nothing here may need it.
sys.modules["requests"] = sys.modules["urllib3"] = None

def forbid_in_kernel():
    """Whether it could be: PR_SET_NO_NEW_PRIVS, then a seccomp filter that ends whoever makes a socket but AF_UNIX."""
    socket_call, machine = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}.get(platform.machine(), (None, None))
    if sys.platform != "linux" or socket_call is None:
        return False
    load, equal, back = 0x20, 0x15, 0x06
    allow, kill = 0x7FFF0000, 0x80000000
    steps = (
        (load, 0, 0, 4), (equal, 0, 5, machine),      # another machine's numbering: not ours, allowed
        (load, 0, 0, 0), (equal, 0, 3, socket_call),  # the number of the call
        (load, 0, 0, 16), (equal, 1, 0, 1),           # its first argument: the family; 1 is AF_UNIX
        (back, 0, 0, kill), (back, 0, 0, allow),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
    call = ctypes.CDLL(None, use_errno=True).prctl
    call.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    return call(38, 1, 0, 0, 0) == 0 and call(22, 2, ctypes.addressof(program), 0, 0) == 0

if os.environ["NLSTSEG_TEST_KERNEL"] == "1" and not forbid_in_kernel():
    sys.exit("the kernel guard could not be set")
'''
"""Runs before any other Python of the process, as ``sitecustomize``."""


def has_kernel_guard() -> bool:
    """Whether this system has the second guard."""
    if sys.platform != "linux":
        return False
    status = Path("/proc/self/status").read_text()
    return os.uname().machine in ("x86_64", "aarch64") and "\nSeccomp:" in status


@dataclass(frozen=True)
class Guarded:
    """How a program ended that was not allowed to use the network; ``tried`` has a line for everything Python tried."""

    exit_code: int
    stdout: str
    stderr: str
    tried: str


def guarded_environment(folder: Path, **variables: str) -> dict[str, str]:
    """Environment in which every Python process is guarded; what it tries is written to :data:`TRIED_FILE` in ``folder``.

    ``folder`` is there and not in use. For processes that a test starts itself; :func:`run_without_network` needs no more.
    """
    (folder / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    paths = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "NLSTSEG_TEST_TRIED": str(folder / TRIED_FILE),
        "NLSTSEG_TEST_KERNEL": str(int(has_kernel_guard())),
        "OMP_NUM_THREADS": "1",
        **variables,
    }


def tried_in(folder: Path) -> str:
    """What the processes of :func:`guarded_environment` tried; empty for nothing."""
    file = folder / TRIED_FILE
    return file.read_text() if file.exists() else ""


def run_without_network(folder: Path, *arguments: object, **variables: str) -> Guarded:
    """Run ``python`` with these arguments in the current folder; ``folder`` is there for the guard and not in use."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=guarded_environment(folder, **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    return Guarded(done.returncode, done.stdout, done.stderr, tried_in(folder))
