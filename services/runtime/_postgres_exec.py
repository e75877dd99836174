"""Become a user PostgreSQL accepts, tie this process's life to its parent's, then exec the command.

Run by `embedded.py` as `python -I -S _postgres_exec.py PARENT_PID IDENTITY DATA_DIR COMMAND [ARG...]`; standard library
only. It is a script of its own because all three steps must happen in the child, between fork and exec, where a
threaded parent may not run Python.

IDENTITY is one of
- `current`: stay who we are;
- `namespace`: enter a user namespace in which we have a named, unprivileged uid, and outside of which we stay who we
  are. PostgreSQL refuses to run as root, and initdb to run as a uid without a name; this satisfies both without
  changing the owner of a single file;
- `UID:GID`: give up root for good.
"""

import ctypes
import os
import pwd
import signal
import sys

# Exit statuses of this script alone: PostgreSQL's programs exit with 0, 1, 2 or 3.
NAMESPACE_REFUSED = 77
UNREACHABLE = 78
CANNOT_RUN = 79
PARENT_GONE = 80

CLONE_NEWUSER = 0x10000000  # linux/sched.h; os.unshare came only with Python 3.12
PR_SET_PDEATHSIG = 1  # linux/prctl.h
CUSTOMARY_UID = 1000  # the first ordinary user on most distributions

libc = ctypes.CDLL(None, use_errno=True)


def main(argv: list[str]) -> None:
    """Do the three steps and exec; returns only by exiting with one of the statuses above, the reason on stderr."""
    parent_pid, identity, data_dir, *command = argv
    if identity == "namespace":
        try:
            enter_user_namespace()
        except OSError as refusal:
            leave(NAMESPACE_REFUSED, f"the kernel refuses a user namespace: {refusal}")
    elif identity != "current":
        uid, gid = (int(number) for number in identity.split(":"))
        try:
            give_up_root(uid, gid)
        except OSError as refusal:
            leave(UNREACHABLE, f"cannot become uid {uid}: {refusal}")
        for path in (command[0], data_dir):
            closed = first_closed_parent(path)
            if closed is not None:
                leave(UNREACHABLE, f"uid {uid} cannot traverse {closed}, on the way to {path}")
    tie_to_parent(int(parent_pid))
    for changed_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(changed_by_python, signal.SIG_DFL)
    try:
        os.execv(command[0], command)
    except OSError as failure:
        leave(CANNOT_RUN, f"cannot execute {command[0]}: {failure}")


def enter_user_namespace() -> None:
    """Map our uid and gid to a named unprivileged user inside a new user namespace.

    Each map has one line for our own id, and setgroups is denied first: that is all the kernel grants a writer without
    privileges in the parent namespace, which is what unshare has just made us (user_namespaces(7), "Defining user and
    group ID mappings").

    Raises OSError: the kernel, a container's seccomp filter or AppArmor forbids it.
    """
    outside_uid, outside_gid, inside = os.geteuid(), os.getegid(), named_unprivileged_uid()
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside} {outside_uid} 1"),
        ("gid_map", f"{inside} {outside_gid} 1"),
    ):
        with open(f"/proc/self/{file}", "w", encoding="ascii") as map_file:
            map_file.write(text)


def named_unprivileged_uid() -> int:
    """The customary uid, or the smallest but root's, that has a passwd entry: initdb looks up its user's name."""
    try:
        return pwd.getpwuid(CUSTOMARY_UID).pw_uid
    except KeyError:
        return min((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0), default=CUSTOMARY_UID)


def give_up_root(uid: int, gid: int) -> None:
    """Become `uid:gid` irrevocably, without supplementary groups. Groups go first: afterwards we may no longer."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def first_closed_parent(path: str) -> str | None:
    """The topmost directory above `path` that this process may not traverse, if any."""
    parents: list[str] = []
    while os.path.dirname(path) != path:
        path = os.path.dirname(path)
        parents.append(path)
    return next((parent for parent in reversed(parents) if not os.access(parent, os.X_OK)), None)


def tie_to_parent(parent_pid: int) -> None:
    """Receive SIGINT (PostgreSQL's fast shutdown) when the thread that forked us dies.

    After the identity, because a change of credentials clears the setting. SIGINT is reset first: a parent started in a
    shell's background ignores it, the ignoring is inherited, and a signal that came before postgres has its handler
    would be lost. The parent may have died before prctl took effect; then we have been given to another parent already.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0) != 0:
        leave(CANNOT_RUN, f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent_pid:
        leave(PARENT_GONE, f"parent {parent_pid} is gone")


def leave(status: int, reason: str) -> None:
    """Exit with `status`, the reason as the last line on stderr."""
    print(f"postgres_exec: {reason}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
