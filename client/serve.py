"""The verb `serve`: a running server that serves what the model store holds, however it was."""

import os
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path

from arguments import option
from client import api, archives, server, settings
from client import state as states
from client.archives import Archive, ArchiveError
from client.state import Running

PICTURES = {".jpeg", ".jpg", ".png"}


@dataclass(frozen=True)
class Options:
    """What `serve` was asked for."""

    networks: list[str] | None = option(
        None, "networks to serve (all in the model store)", type=str, nargs="+"
    )
    model_store: Path = option(Path("model_store"), "folder of archives (%(default)s)")
    config: Path = option(Path("config.properties"), "TorchServe's settings (%(default)s)")
    log_config: Path = option(Path("deploy/log4j2.xml"), "TorchServe's log settings (%(default)s)")
    data: Path = option(Path("data"), "where to look for a picture for the example (%(default)s)")
    auth: str | None = option(None, "let in only who brings a token", choices=["token"])
    tls: Path | None = option(None, "folder with server.key and server.pem")
    address: str | None = option(None, "of inference, for other machines: needs --auth and --tls")
    state: Path = Path(".server")
    ports: dict[str, int] = field(default_factory=dict)  # by name in settings.PORTS


def serve(options: Options) -> None:
    """Start a server, or bring the running one up to date; returns when every network answers.

    Raises ArchiveError, StartError or ServerError with the reason; what it started is stopped then.
    """
    retired = states.retired(options.state)
    wanted = [
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
            reason = reason_to_restart(running, options.model_store, values, wanted)
            if reason:
                print(f"Restarting the server: {reason}.")
                running = None
        if running:
            running = _add_new(options.state, running, wanted)
        else:
            server.stop(options.state)
            running = _start(options, values, wanted)
    _announce(running, options)


def reason_to_restart(
    running: Running, store: Path, values: dict[str, str], wanted: list[Archive]
) -> str | None:
    """Why the running server can't go on as it is; None where it can."""
    if Path(running.model_store) != store.resolve():
        return f"it serves {running.model_store}"
    if running.settings != settings.fingerprint(values):
        return "its settings have changed"
    for name, sha256 in running.archives.items():
        if not (store / name).is_file():
            return f"{name} has left the model store"
        if archives.read(store / name).sha256 != sha256:
            return f"{name} was built anew"
    for archive in wanted:
        if archive.path.name in running.archives and not _answers(running, archive):
            return f"{archive.network} {archive.version} does not answer"
    return None


def _answers(running: Running, archive: Archive) -> bool:
    try:
        api.card(running.management_at, archive.network, archive.version)
    except (api.ServerError, api.NoServerError):
        return False
    return True


def _start(options: Options, values: dict[str, str], wanted: list[Archive]) -> Running:
    print("Starting TorchServe ...", flush=True)
    try:
        running = server.start(values, options.model_store, options.state, options.log_config)
        for archive in wanted:
            running = register(options.state, running, archive)
    except BaseException:  # Ctrl-C too: half a server is left to nobody
        server.stop(options.state)
        raise
    for network in sorted({archive.network for archive in wanted}):
        _set_default(options.state, running, network, wanted)
    return running


def _set_default(state: Path, running: Running, network: str, wanted: list[Archive]) -> None:
    """The default of before, where it is still there; else the highest version."""
    history = states.defaults(state, network)
    there = {archive.version for archive in wanted if archive.network == network}
    if not history or history[-1] not in there:
        history = [*history, archives.highest(wanted, network)]
        states.record_defaults(state, network, history)
    api.set_default(running.management_at, network, history[-1])


def _add_new(state: Path, running: Running, wanted: list[Archive]) -> Running:
    new = [archive for archive in wanted if archive.path.name not in running.archives]
    before = {version.network for version in api.versions(running.management_at)}
    for archive in new:
        running = register(state, running, archive)
        if archive.network in before:
            chosen = f"NETWORK={archive.network} VERSION={archive.version}"
            print(f"  the default stays as it was; to change it: make promote {chosen}")
    for network in sorted({archive.network for archive in new} - before):
        _set_default(state, running, network, wanted)
    if not new:
        print("Already running, with these very archives.")
    return running


def register(state: Path, running: Running, archive: Archive) -> Running:
    """Load one archive more into the running server.

    Raises ArchiveError where it is not whole, ServerError with the worker's own reason from the log
    where it does not come up.
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
        raise api.ServerError(error.code, f"{name} does not come up: {error}\n{reason}") from error
    print(
        f"  {archive.network} {archive.version} answers ({time.monotonic() - started:.0f} s)",
        flush=True,
    )
    states.forget_retired(state, name)
    return states.record_archive(state, running, name, archive.sha256)


def register_file(state: Path, running: Running, path: Path) -> Running:
    """Load one file of the model store into the running server, beside what it serves.

    Raises ArchiveError where it lies elsewhere or has changed since it was loaded.
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
    """What a worker that failed to load had to say: its first traceback, else its last lines."""
    of_worker = [line for line in log.splitlines() if f"-{network}_{version}-std" in line]
    said = [line.split(" MODEL_LOG - ", 1)[-1] for line in of_worker]
    first = next((i for i, line in enumerate(said) if line.startswith("Traceback")), None)
    if first is None:
        return "\n".join(said[-longest:])
    # After the reason come tracebacks of TorchServe's own: it looks for a handler elsewhere, ends.
    after = ("During handling of the above exception", "Backend worker process died.")
    last = next((i for i, line in enumerate(said) if i > first and line.startswith(after)), None)
    return "\n".join(said[first:last][:longest]).rstrip()


def _announce(running: Running, options: Options) -> None:
    versions = api.versions(running.management_at)
    print()
    for version in versions:
        mark = "default" if version.default else ""
        print(f"{version.network:<12} {version.version:<8} {mark:<8} {version.status}")
    reach = "this machine alone" if api.is_loopback(running.inference) else "other machines too"
    print(f"\nInference   {running.inference}, from {reach}")
    print(f"Management  {running.management}")
    print(f"Logs        {options.state / 'logs'}")
    image = example_image(options.data)
    name = shlex.quote(str(image)) if image else "IMAGE.jpeg"
    url = f"{running.inference}/predictions/{(options.networks or [versions[0].network])[0]}"
    bring = ""
    if running.keys:
        bring += ' -H "Authorization: Bearer $(make -s token)"'
    if running.authority:
        bring += f" --cacert {shlex.quote(running.authority)}"
    print(f"\nAsk it:\n  curl{bring} -T {name} {url}")
    print(f"  curl{bring} -T {name} -H 'Accept: image/png' -o overlay.png {url}")
    print("\nNext: make predict IMAGE=FILE_OR_FOLDER, make versions; make stop ends the server.")


def example_image(data: Path) -> Path | None:
    """A picture to try, one of a test set where there is one."""
    for folder in [*sorted(data.glob("**/test")), data]:
        for root, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files):
                if Path(name).suffix.lower() in PICTURES:
                    return Path(root) / name
    return None
