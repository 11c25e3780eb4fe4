"""The verb `serve`: start a server of the model store's archives, or update the running one."""

import os
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path

from arguments import option
from client import api, archives, server, settings, transport
from client import state as states
from client.archives import Archive, ArchiveError
from client.state import Running

SUFFIXES = {".jpeg", ".jpg", ".png"}


@dataclass(frozen=True)
class Options:
    """The options of `serve`."""

    networks: list[str] | None = option(
        None, "networks to serve (default: all in the model store)", type=str, nargs="+"
    )
    model_store: Path = option(Path("model_store"), "folder of archives (default: %(default)s)")
    config: Path = option(
        Path("config.properties"), "file of TorchServe's settings (default: %(default)s)"
    )
    log_config: Path = option(
        Path("deploy/log4j2.xml"), "file of TorchServe's log settings (default: %(default)s)"
    )
    data: Path = option(
        Path("data"), "folder to take the image of the example from (default: %(default)s)"
    )
    auth: str | None = option(None, "refuse requests without a token", choices=["token"])
    tls: Path | None = option(None, "folder with server.key and server.pem: inference over https")
    address: str | None = option(
        None, "address of inference for other machines; needs --auth and --tls"
    )
    state: Path = Path(".server")
    ports: dict[str, int] = field(default_factory=dict)  # by name in settings.PORTS


def serve(options: Options) -> None:
    """Start a server, or bring the running one up to date; returns when every network answers.

    If a server was started and an archive fails, the server is stopped.

    Raises:
        ArchiveError: an archive is missing or damaged.
        StartError: the settings are refused, or TorchServe does not start.
        ServerError: an archive does not load.
    """
    retired = states.retired(options.state)
    selected = [
        archive
        for archive in archives.find(options.model_store, options.networks)
        if retired.get(archive.path.name) != archive.sha256
    ]
    values = settings.read(
        options.config, options.ports, auth=options.auth, tls=options.tls, host=options.address
    )
    with states.locked(options.state):
        running = states.running(options.state)
        if running:
            reason = reason_to_restart(running, options.model_store, values, selected)
            if reason:
                print(f"Restarting the server: {reason}.")
                running = None
        if running:
            running = _add_new(options.state, running, selected)
        else:
            server.stop(options.state)
            running = _start(options, values, selected)
    _announce(running, options)


def reason_to_restart(
    running: Running, store: Path, values: dict[str, str], selected: list[Archive]
) -> str | None:
    """Why the running server must be restarted to serve the selected archives; None if not.

    `store` and `values` are the model store and the settings that it should have.
    """
    if Path(running.model_store) != store.resolve():
        return f"it serves {running.model_store}"
    if running.settings != settings.fingerprint(values):
        return "its settings have changed"
    for name, sha256 in running.archives.items():
        if not (store / name).is_file():
            return f"{name} was removed from the model store"
        if archives.read(store / name).sha256 != sha256:
            return f"{name} was rebuilt"
    for archive in selected:
        if archive.path.name in running.archives and not _answers(running, archive):
            return f"{archive.network} {archive.version} does not answer"
    return None


def _answers(running: Running, archive: Archive) -> bool:
    try:
        api.card(running.management_at, archive.network, archive.version)
    except (api.ServerError, api.NoServerError):
        return False
    return True


def _start(options: Options, values: dict[str, str], selected: list[Archive]) -> Running:
    print("Starting TorchServe ...", flush=True)
    try:
        running = server.start(values, options.model_store, options.state, options.log_config)
        for archive in selected:
            running = register(options.state, running, archive)
    except BaseException:  # Ctrl-C as well: no server with some of the archives stays behind
        server.stop(options.state)
        raise
    for network in sorted({archive.network for archive in selected}):
        _set_default(options.state, running, network, selected)
    return running


def _set_default(state: Path, running: Running, network: str, selected: list[Archive]) -> None:
    """Make the last default the default again; if it is not served, the highest version."""
    history = states.defaults(state, network)
    versions = {archive.version for archive in selected if archive.network == network}
    if not history or history[-1] not in versions:
        history = [*history, archives.highest(selected, network)]
        states.record_defaults(state, network, history)
    api.set_default(running.management_at, network, history[-1])


def _add_new(state: Path, running: Running, selected: list[Archive]) -> Running:
    """Register the selected archives that the server does not serve yet."""
    new = [archive for archive in selected if archive.path.name not in running.archives]
    before = {version.network for version in api.versions(running.management_at)}
    for archive in new:
        running = register(state, running, archive)
        if archive.network in before:
            variables = f"NETWORK={archive.network} VERSION={archive.version}"
            print(f"  the default is unchanged; to change it: make promote {variables}")
    for network in sorted({archive.network for archive in new} - before):
        _set_default(state, running, network, selected)
    if not new:
        print("Already running, with the same archives.")
    return running


def register(state: Path, running: Running, archive: Archive) -> Running:
    """The record of the running server after it has loaded one more archive.

    Raises:
        ArchiveError: the archive is damaged.
        ServerError: it does not load; the message has the worker's reason, from the log.
    """
    archives.check(archive)
    log = state / "logs" / "model_log.log"
    before = log.stat().st_size if log.exists() else 0
    started = time.monotonic()
    name = archive.path.name
    try:
        api.register(
            *(running.management_at, name, archive.network, archive.version),
            *(running.workers, running.batch_size, running.max_batch_delay),
        )
    except api.ServerError as error:
        reason = worker_reason(_read_from(log, before), archive.network, archive.version)
        raise api.ServerError(error.code, f"{name} does not load: {error}\n{reason}") from error
    print(
        f"  {archive.network} {archive.version} answers ({time.monotonic() - started:.0f} s)",
        flush=True,
    )
    states.forget_retired(state, name)
    return states.record_archive(state, running, name, archive.sha256)


def register_file(state: Path, running: Running, path: Path) -> Running:
    """The record of the running server after it has loaded one more file of its model store.

    Raises:
        ArchiveError: the file is not in the model store, is damaged, or has changed since it was
            loaded.
        ServerError: it does not load.
    """
    archive = archives.read(path)
    if path.resolve().parent != Path(running.model_store):
        raise ArchiveError(f"{path} is not in {running.model_store}: copy it there first")
    loaded = running.archives.get(path.name)
    if loaded == archive.sha256:
        print(f"{archive.network} {archive.version} is served already.")
        return running
    if loaded:
        raise ArchiveError(f"{path.name} has changed since it was loaded: run make serve")
    return register(state, running, archive)


def _read_from(log: Path, offset: int) -> str:
    if not log.exists():
        return ""
    return log.read_bytes()[offset:].decode(errors="replace")


def worker_reason(log: str, network: str, version: str, longest: int = 40) -> str:
    """The first traceback that a worker wrote to the log; without one, its last lines.

    At most `longest` lines.
    """
    of_worker = [line for line in log.splitlines() if f"-{network}_{version}-std" in line]
    lines = [line.split(" MODEL_LOG - ", 1)[-1] for line in of_worker]
    first = next((i for i, line in enumerate(lines) if line.startswith("Traceback")), None)
    if first is None:
        return "\n".join(lines[-longest:])
    # TorchServe's own tracebacks follow, as it looks for a handler elsewhere and gives up.
    end = ("During handling of the above exception", "Backend worker process died.")
    last = next((i for i, line in enumerate(lines) if i > first and line.startswith(end)), None)
    return "\n".join(lines[first:last][:longest]).rstrip()


def _announce(running: Running, options: Options) -> None:
    versions = api.versions(running.management_at)
    print()
    for version in versions:
        mark = "default" if version.default else ""
        print(f"{version.network:<12} {version.version:<8} {mark:<8} {version.status}")
    local = transport.is_loopback(running.inference)
    reach = "this machine only" if local else "other machines too"
    print(f"\nInference   {running.inference}, reachable from {reach}")
    print(f"Management  {running.management}")
    print(f"Logs        {options.state / 'logs'}")
    image = example_image(options.data)
    name = shlex.quote(str(image)) if image else "IMAGE.jpeg"
    url = f"{running.inference}/predictions/{(options.networks or [versions[0].network])[0]}"
    access = ""
    if running.keys:
        access += ' -H "Authorization: Bearer $(make -s token)"'
    if running.authority:
        access += f" --cacert {shlex.quote(running.authority)}"
    print(f"\nTry it:\n  curl{access} -T {name} {url}")
    print(f"  curl{access} -T {name} -H 'Accept: image/png' -o overlay.png {url}")
    print("\nNext: make predict IMAGE=FILE_OR_FOLDER, make versions; make stop ends the server.")


def example_image(data: Path) -> Path | None:
    """The first image below a folder, preferably of a test set; None without images."""
    for folder in [*sorted(data.glob("**/test")), data]:
        for root, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files):
                if Path(name).suffix.lower() in SUFFIXES:
                    return Path(root) / name
    return None
