"""The embedded server's promises: it keeps what it acknowledged, it dies with us, it refuses what is not its own.

Always the real server. Root and ordinary users take different ways through the code: as root the tests also drop to an
ordinary user.
"""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from services.runtime import embedded
from services.runtime.embedded import (
    DataDirectoryInUse,
    DataDirectoryUnreachable,
    EmbeddedPostgres,
    EmbeddedPostgresError,
    ForeignDataDirectory,
    NotOnMainThread,
    NotRunning,
    OrphanStillRunning,
    OtherMajorVersion,
    ServerDidNotStart,
    SocketDirectoryUnsafe,
    last_log_lines,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the embedded server needs Linux")
only_as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

REPOSITORY = Path(embedded.__file__).parents[2]
SITE_PACKAGES = Path(psycopg.__file__).parents[1]
ORDINARY_UID = 65534
SHORTLY_S = 10.0

# Says the server's pid, then each number once it is committed.
WRITER = """
import sys
from pathlib import Path
import psycopg
from services.runtime.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
with psycopg.connect(server.start(), autocommit=True) as connection:
    print(server.pid, flush=True)
    connection.execute("CREATE TABLE acknowledged (number bigint PRIMARY KEY)")
    for number in range(1_000_000):
        connection.execute("INSERT INTO acknowledged VALUES (%s)", (number,))
        print(number, flush=True)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory that every user can reach, which pytest's own tmp_path is not."""
    directory = Path(tempfile.mkdtemp(prefix="embedded-test-"))
    directory.chmod(0o755)
    yield directory

    def removed() -> bool:
        shutil.rmtree(directory, ignore_errors=True)  # a server whose parent a test killed may still be removing its own files
        return not directory.exists()

    assert wait_until(removed)


def python(
    program: str,
    *arguments: object,
    interpreter: str = sys.executable,
    uid: int | None = None,
    new_session: bool = False,
) -> "subprocess.Popen[str]":
    """Run `program` in another process that can import what we can, as `uid` without any other group than its own."""
    return subprocess.Popen(
        [interpreter, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{SITE_PACKAGES}", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
        start_new_session=new_session,
    )


def line_from(process: "subprocess.Popen[str]") -> str:
    """The next line the process prints; fails with its stderr if it ends instead."""
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline().strip()
    assert line, process.stderr.read()
    return str(line)


def killed(process: "subprocess.Popen[str]") -> list[str]:
    """Kill the process with -9; what it had still printed."""
    process.kill()
    return process.communicate()[0].splitlines()


def runs(pid: int) -> bool:
    """Whether the process exists and is no zombie: what is orphaned in a container may never be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(happened: Callable[[], object], timeout_s: float = SHORTLY_S) -> bool:
    """Whether it happened in time."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def setting(dsn: str, name: str) -> str:
    """A setting of the running server."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
        assert row is not None
        return str(row[0])


def test_a_warm_start_keeps_what_a_cold_start_stored(place: Path) -> None:
    """Rows committed before stop are there after the next start, under the same DSN."""
    with EmbeddedPostgres(place / "data") as server, psycopg.connect(server.dsn) as connection:
        connection.execute("CREATE TABLE shop (name text)")
        connection.execute("INSERT INTO shop VALUES ('Teahouse 茶')")
        first_dsn = server.dsn
    with EmbeddedPostgres(place / "data") as server, psycopg.connect(server.dsn) as connection:
        assert connection.execute("SELECT name FROM shop").fetchall() == [("Teahouse 茶",)]
        assert server.dsn == first_dsn


def test_stop_ends_the_server_and_leaves_no_socket_directory(place: Path) -> None:
    """After stop neither the process nor its socket directory exists, and stopping again does nothing."""
    server = EmbeddedPostgres(place / "data", durable=False)
    server.start()
    pid, sockets = server.pid, psycopg.conninfo.conninfo_to_dict(server.dsn)["host"]
    server.stop()
    server.stop()
    assert not runs(pid)
    assert not Path(str(sockets)).exists()
    with pytest.raises(NotRunning):
        _ = server.dsn


def test_before_start_there_is_neither_a_dsn_nor_a_pid(place: Path) -> None:
    """The properties of a server that has not been started raise NotRunning rather than guess."""
    server = EmbeddedPostgres(place / "data")
    with pytest.raises(NotRunning):
        _ = server.dsn
    with pytest.raises(NotRunning):
        _ = server.pid


def test_starting_a_running_server_gives_the_same_server(place: Path) -> None:
    """start is idempotent while the server runs."""
    with EmbeddedPostgres(place / "data", durable=False) as server:
        pid = server.pid
        assert server.start() == server.dsn
        assert server.pid == pid


def test_the_cluster_is_made_as_the_ledger_needs_it(place: Path) -> None:
    """Durable, checksummed, UTF-8 in code point order, 200 connections, owned by fenrun_owner, in UTC."""
    with EmbeddedPostgres(place / "data") as server:
        wanted = {
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "data_checksums": "on",
            "server_encoding": "UTF8",
            "max_connections": "200",
            "TimeZone": "UTC",
        }
        assert {name: setting(server.dsn, name) for name in wanted} == wanted
        with psycopg.connect(server.dsn) as connection:
            assert connection.execute("SELECT current_user, current_database()").fetchone() == (
                "fenrun_owner",
                "fenrun",
            )
            assert connection.execute("SELECT array_agg(s ORDER BY s) FROM unnest(ARRAY['b', 'é', 'B', 'a']) s").fetchone() == (
                ["B", "a", "b", "é"],
            )
            assert connection.execute("SELECT upper('é')").fetchone() == ("É",)


def test_it_listens_on_a_private_unix_socket_only(place: Path) -> None:
    """No TCP, and only the server's user can enter the directory of the socket."""
    with EmbeddedPostgres(place / "data", durable=False) as server:
        assert setting(server.dsn, "listen_addresses") == ""
        directory = Path(setting(server.dsn, "unix_socket_directories"))
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_client_settings_in_the_environment_lead_to_no_other_server(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The DSN means our server also when PGHOST, PGHOSTADDR, PGPORT or PGDATA speak of another one."""
    for name, value in {
        "PGHOST": "localhost",
        "PGHOSTADDR": "127.0.0.1",
        "PGPORT": "1",
        "PGDATA": "/nonexistent",
    }.items():
        monkeypatch.setenv(name, value)
    with EmbeddedPostgres(place / "data", durable=False) as server:
        assert Path(setting(server.dsn, "data_directory")) == place / "data" / "pg"


def test_fsync_can_be_turned_off_for_tests(place: Path) -> None:
    """durable=False, and nothing else, gives up durability."""
    with EmbeddedPostgres(place / "data", durable=False) as server:
        assert setting(server.dsn, "fsync") == "off"


def test_the_data_directory_may_have_a_long_path(place: Path) -> None:
    """A path far beyond the 107 bytes of a unix socket address works, spaces and all."""
    long_path = place / ("a long name " * 10) / ("月" * 60) / "data"
    with EmbeddedPostgres(long_path, durable=False) as server:
        assert setting(server.dsn, "data_directory") == str(long_path / "pg")


def test_a_temporary_directory_too_long_for_a_socket_is_not_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long TMPDIR makes the socket go to /tmp rather than make the start fail."""
    long_temporary = place / ("t" * 100)
    long_temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long_temporary))
    with EmbeddedPostgres(place / "data", durable=False) as server:
        assert setting(server.dsn, "unix_socket_directories").startswith("/tmp/fenrun-")


def test_a_socket_directory_that_is_not_ours_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another has put a link in the place of the socket directory, the start is refused."""
    with EmbeddedPostgres(place / "data", durable=False, user_namespaces=True) as server:
        directory = Path(setting(server.dsn, "unix_socket_directories"))
    directory.symlink_to(place)
    try:
        with pytest.raises(SocketDirectoryUnsafe, match=directory.name):
            EmbeddedPostgres(place / "data", durable=False).start()
    finally:
        directory.unlink()


def test_after_kill_9_the_server_is_gone_shortly_and_every_acknowledged_row_is_there(place: Path) -> None:
    """The server dies with its parent; the next start works at once and finds every acknowledged row."""
    writer = python(WRITER, place / "data")
    postmaster = int(line_from(writer))
    while int(line_from(writer)) < 200:
        pass
    acknowledged = 1 + max(int(number) for number in killed(writer) or ["200"])
    with EmbeddedPostgres(place / "data") as server, psycopg.connect(server.dsn) as connection:
        assert not runs(postmaster)
        row = connection.execute("SELECT count(*), max(number) + 1 FROM acknowledged").fetchone()
        assert row is not None and row[0] == row[1] and row[0] >= acknowledged


def test_a_parent_that_ignores_sigint_takes_its_server_along(place: Path) -> None:
    """A parent started in a shell's background ignores SIGINT; the server it leaves behind does not inherit that."""
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    writer = python(ignoring + WRITER, place / "data")
    postmaster = int(line_from(writer))
    killed(writer)
    assert wait_until(lambda: not runs(postmaster))


def test_ctrl_c_reaches_us_and_not_the_server(place: Path) -> None:
    """SIGINT to our process group leaves the server running, so that we can drain first."""
    writer = python(
        WRITER.replace("import sys", "import signal, sys; signal.signal(signal.SIGINT, lambda *_: None)"),
        place / "data",
        new_session=True,
    )
    postmaster = int(line_from(writer))
    os.killpg(writer.pid, signal.SIGINT)
    for _ in range(100):
        line_from(writer)
    assert runs(postmaster)
    killed(writer)


def test_kill_9_in_the_middle_of_initdb_leaves_nothing_half_made(place: Path) -> None:
    """A cluster appears whole or not at all, and the next start sweeps up what was begun."""
    data_dir = place / "data"
    writer = python(WRITER, data_dir)
    assert wait_until(lambda: list(data_dir.glob("pg.init-*/PG_VERSION")))
    killed(writer)
    assert not (data_dir / "pg").exists()
    with EmbeddedPostgres(data_dir) as server:
        assert setting(server.dsn, "server_version_num").startswith("18")
    assert not list(data_dir.glob("pg.init-*"))


def test_the_next_start_names_an_orphan_that_does_not_end(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for a predecessor's server has a limit, its error names the process; after its end the start works."""
    monkeypatch.setattr(embedded, "ORPHAN_TIMEOUT_S", 0.2)
    writer = python(WRITER, place / "data")
    postmaster = int(line_from(writer))
    os.kill(postmaster, signal.SIGSTOP)
    try:
        killed(writer)
        with pytest.raises(OrphanStillRunning, match=str(postmaster)):
            EmbeddedPostgres(place / "data").start()
    finally:
        os.kill(postmaster, signal.SIGCONT)
    assert wait_until(lambda: not runs(postmaster))
    with EmbeddedPostgres(place / "data") as server:
        assert server.pid != postmaster


def test_a_recorded_pid_that_is_now_somebody_elses_does_not_block_the_start(place: Path) -> None:
    """After kill -9 postmaster.pid may name a living stranger, above all in containers; start tells them apart."""
    server = EmbeddedPostgres(place / "data")
    server.start()
    pid_file = place / "data" / "pg" / "postmaster.pid"
    recorded = pid_file.read_text()
    server.stop()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        pid_file.write_text(recorded.replace(recorded.split("\n")[0], str(stranger.pid), 1))
        pid_file.chmod(0o600)
        os.chown(pid_file, pid_file.parent.stat().st_uid, -1)
        with EmbeddedPostgres(place / "data") as server:
            assert setting(server.dsn, "fsync") == "on"
        stranger.kill()


def test_a_server_started_by_hand_on_the_cluster_is_respected(place: Path) -> None:
    """When the recorded postmaster works on the cluster without being ours, the start is refused and names it."""
    with EmbeddedPostgres(place / "data", durable=False):
        pass
    with subprocess.Popen(["sleep", "60"], cwd=place / "data" / "pg") as by_hand:
        (place / "data" / "pg" / "postmaster.pid").write_text(f"{by_hand.pid}\n")
        with pytest.raises(DataDirectoryInUse) as refused:
            EmbeddedPostgres(place / "data", durable=False).start()
        assert refused.value.pid == by_hand.pid
        by_hand.kill()


def test_a_server_that_died_can_be_started_again(place: Path) -> None:
    """start on an instance whose postmaster was killed waits for the rest of it and brings up a new one."""
    with EmbeddedPostgres(place / "data") as server:
        with psycopg.connect(server.dsn) as connection:
            connection.execute("CREATE TABLE kept (n int)")
        first = server.pid
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: not runs(first))
        server.start()
        assert server.pid != first
        with psycopg.connect(server.dsn) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_second_start_on_a_held_data_directory_names_the_holder(place: Path) -> None:
    """Another process, or another object in this one, is refused with the pid of the holder, who is not disturbed."""
    with EmbeddedPostgres(place / "data", durable=False) as server:
        with pytest.raises(DataDirectoryInUse, match=str(os.getpid())) as refused:
            EmbeddedPostgres(place / "data", durable=False).start()
        assert refused.value.pid == os.getpid()
        other = python(WRITER, place / "data")
        assert f"DataDirectoryInUse: {place / 'data'} is in use by process {os.getpid()}" in other.communicate()[1]
        assert setting(server.dsn, "fsync") == "off"


def test_of_many_that_start_at_once_one_wins(place: Path) -> None:
    """Processes racing to make the same new data directory: one serves, all others are told that it is in use."""
    racers = [python(WRITER, place / "data") for _ in range(6)]
    assert wait_until(lambda: sum(racer.poll() is not None for racer in racers) == 5, timeout_s=30)
    (winner,) = (racer for racer in racers if racer.poll() is None)
    postmaster = int(line_from(winner))
    assert all("DataDirectoryInUse" in racer.communicate()[1] for racer in racers if racer is not winner)
    killed(winner)
    assert wait_until(lambda: not runs(postmaster))


def test_a_forked_child_cannot_stop_its_parents_server(place: Path) -> None:
    """In a child made by fork stop does nothing and start is refused: the server belongs to the parent."""
    with EmbeddedPostgres(place / "data", durable=False) as server:
        child = os.fork()
        if child == 0:
            try:
                server.stop()
                server.start()
            except DataDirectoryInUse:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert setting(server.dsn, "fsync") == "off"


def test_a_cluster_of_another_major_version_is_refused(place: Path) -> None:
    """One clear error names both versions, and the cluster is not touched."""
    cluster = place / "data" / "pg"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("17\n")
    with pytest.raises(OtherMajorVersion, match=r"made by PostgreSQL 17, the embedded server is 18"):
        EmbeddedPostgres(place / "data").start()
    assert [path.name for path in (place / "data").rglob("*")] == ["pg", "PG_VERSION"]


@pytest.mark.parametrize("foreign", ["holiday.jpg", "PG_VERSION", "pg/holiday.jpg"])
def test_a_directory_with_other_contents_is_refused_and_left_alone(place: Path, foreign: str) -> None:
    """Neither somebody's files, nor a bare cluster, nor files in the cluster's place are taken over."""
    file = place / "data" / foreign
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(ForeignDataDirectory):
        EmbeddedPostgres(place / "data").start()
    assert [path for path in (place / "data").rglob("*") if path.is_file()] == [file]


def test_a_file_in_the_place_of_the_data_directory_is_refused(place: Path) -> None:
    """A path that is a file, or goes through one, gets a clear error too."""
    (place / "data").touch()
    for path in (place / "data", place / "data" / "below"):
        with pytest.raises(ForeignDataDirectory, match="not a directory"):
            EmbeddedPostgres(path).start()


def test_an_empty_existing_directory_is_fine(place: Path) -> None:
    """A freshly mounted volume, lost+found included, is as good as no directory."""
    (place / "data" / "lost+found").mkdir(parents=True)
    with EmbeddedPostgres(place / "data", durable=False) as server:
        assert runs(server.pid)


def test_starting_off_the_main_thread_is_refused(place: Path) -> None:
    """The server would die with the thread: the error says so, and nothing is made."""
    errors: list[Exception] = []

    def start() -> None:
        try:
            EmbeddedPostgres(place / "data").start()
        except EmbeddedPostgresError as error:
            errors.append(error)

    thread = threading.Thread(target=start, name="worker-7")
    thread.start()
    thread.join()
    assert [type(error) for error in errors] == [NotOnMainThread]
    assert "main thread" in str(errors[0]) and "worker-7" in str(errors[0])
    assert not (place / "data").exists()


def test_a_server_that_cannot_start_says_why_and_frees_the_directory(place: Path) -> None:
    """The error carries the last lines of the log; afterwards the directory can be used again."""
    with EmbeddedPostgres(place / "data", durable=False):
        pass
    configuration = place / "data" / "pg" / "postgresql.auto.conf"
    before = configuration.read_text()
    configuration.write_text("shared_buffers = 'a lot'\n")
    with pytest.raises(ServerDidNotStart, match="shared_buffers"):
        EmbeddedPostgres(place / "data", durable=False).start()
    configuration.write_text(before)
    with EmbeddedPostgres(place / "data", durable=False) as server:
        assert runs(server.pid)


def test_the_log_quotes_no_values(place: Path) -> None:
    """A failed statement and the detail of its error reach the client, never the log: they may be personal data."""
    with EmbeddedPostgres(place / "data", durable=False) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE member (name text PRIMARY KEY)")
            connection.execute("INSERT INTO member VALUES ('Lin Daiyu')")
            with pytest.raises(psycopg.errors.UniqueViolation, match="Lin Daiyu"):
                connection.execute("INSERT INTO member VALUES ('Lin Daiyu')")
        log = server.log_path.read_text()
    assert "duplicate key" in log and "Lin Daiyu" not in log


def test_last_log_lines_gives_the_end_of_a_file(place: Path) -> None:
    """The last n lines, oldest first; of a huge file only its end is read; a file that is missing has none."""
    log = place / "postgres.log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert last_log_lines(log, 2) == ["line 99998", "line 99999"]
    assert last_log_lines(log, 0) == []
    assert last_log_lines(place / "absent.log", 5) == []


def interpreter_for(uid: int) -> str:
    """A Python of our version that `uid` can run with our packages; skips the test when there is none."""
    name = f"python3.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        with contextlib.suppress(OSError):
            tried = python("import services.runtime.embedded", interpreter=candidate, uid=uid)
            tried.communicate()
            if tried.returncode == 0:
                return candidate
    pytest.skip(f"uid {uid} can run neither {sys.executable} nor another {name} with our packages")


@only_as_root
def test_an_ordinary_user_can_start_it(place: Path) -> None:
    """Without any privilege: cold, killed, and warm again."""
    interpreter = interpreter_for(ORDINARY_UID)
    os.chown(place, ORDINARY_UID, ORDINARY_UID)
    writer = python(WRITER, place / "data", interpreter=interpreter, uid=ORDINARY_UID)
    postmaster = int(line_from(writer))
    assert Path(f"/proc/{postmaster}").stat().st_uid == ORDINARY_UID
    line_from(writer)
    killed(writer)
    counter = WRITER[: WRITER.index("    print")] + "    print(*connection.execute('TABLE acknowledged').fetchone())"
    reader = python(counter, place / "data", interpreter=interpreter, uid=ORDINARY_UID)
    assert line_from(reader) == "0"
    assert reader.wait(SHORTLY_S) == 0


@only_as_root
def test_a_user_without_a_name_can_start_it(place: Path) -> None:
    """A container's arbitrary uid has no passwd entry, which initdb demands; a user namespace lends it one."""
    uid = 123_456
    interpreter = interpreter_for(uid)
    os.chown(place, uid, uid)
    writer = python(WRITER, place / "data", interpreter=interpreter, uid=uid)
    assert writer.stdout is not None and writer.stderr is not None
    postmaster = writer.stdout.readline().strip()
    if not postmaster and "could not look up effective user ID" in writer.stderr.read():
        pytest.skip("user namespaces are refused here, so a user needs a name")
    assert Path(f"/proc/{postmaster}").stat().st_uid == uid
    killed(writer)


@only_as_root
def test_root_without_user_namespaces_runs_it_as_nobody(place: Path) -> None:
    """Without namespaces the server runs as nobody, who is given the data directory; rows made as root stay."""
    interpreter_for(ORDINARY_UID)  # skips where nobody cannot even reach the server binaries
    with EmbeddedPostgres(place / "data") as server, psycopg.connect(server.dsn) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    with EmbeddedPostgres(place / "data", user_namespaces=False) as server, psycopg.connect(server.dsn) as connection:
        assert Path(f"/proc/{server.pid}").stat().st_uid == ORDINARY_UID
        assert (place / "data").stat().st_uid == ORDINARY_UID
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


@only_as_root
def test_a_parent_directory_closed_to_nobody_is_named(place: Path) -> None:
    """When nobody cannot reach the data directory the error names the closed directory, and no owner is changed."""
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(DataDirectoryUnreachable, match=f"cannot traverse {closed},"):
        EmbeddedPostgres(closed / "data", user_namespaces=False).start()
    assert (closed / "data").stat().st_uid == 0


@only_as_root
def test_root_runs_a_users_cluster_as_that_user(place: Path) -> None:
    """One start as root does not take a user's database away from him."""
    interpreter = interpreter_for(ORDINARY_UID)
    os.chown(place, ORDINARY_UID, ORDINARY_UID)
    writer = python(WRITER, place / "data", interpreter=interpreter, uid=ORDINARY_UID)
    line_from(writer)
    killed(writer)
    with EmbeddedPostgres(place / "data") as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid == ORDINARY_UID
    assert {path.lstat().st_uid for path in (place / "data").rglob("*")} == {ORDINARY_UID}
