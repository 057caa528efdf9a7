"""The command `neurogate`: what each sub-command is called and takes.

Heavy modules are imported inside the commands that need them, because a command that only prints must be quick.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from neurogate import __version__
from neurogate.cli import certs, keys
from neurogate.cli.flags import Flags, takes
from neurogate.config import FileSettings, default_environment, sections
from neurogate.engines.settings import DEFAULT_MODEL, EngineSettings, SimSettings
from neurogate.errors import EXIT_CONFIG, ConfigError, NeuroGateError
from neurogate.gateway.settings import GatewayConfig
from neurogate.local.plan import GATEWAY_PORTS, FleetRequest
from neurogate.worker.settings import WorkerConfig

app = typer.Typer(
    name="neurogate",
    help="Serve language models from a fleet of ordinary machines.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help needs no import of rich
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(help="The model files of this machine.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(certs.app, name="certs")

admin = typer.Typer(help="Change a running gateway.", no_args_is_help=True, rich_markup_mode=None)
admin_config = typer.Typer(help="Its settings.", no_args_is_help=True, rich_markup_mode=None)
admin_workers = typer.Typer(help="Its workers.", no_args_is_help=True, rich_markup_mode=None)
admin_breakers = typer.Typer(help="Its workers' breakers.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(admin, name="admin")
admin.add_typer(admin_config, name="config")
admin.add_typer(admin_workers, name="workers")
admin.add_typer(admin_breakers, name="breakers")


class Process(enum.Enum):
    """A process that has a configuration."""

    GATEWAY = "gateway"
    WORKER = "worker"


Url = Annotated[str, typer.Option(help="Base URL of a running gateway.")]
AdminKey = Annotated[str, typer.Option(help="Key of the admin API. [NEUROGATE_ADMIN_KEY]", show_default=False)]
TlsCa = Annotated[
    str, typer.Option(help="CA (PEM) of an https URL; the system's unless given.", metavar="FILE", show_default=False)
]
WorkerId = Annotated[str, typer.Argument(help="Its id, as `neurogate workers` shows it.")]
DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_OPS_URL = "http://127.0.0.1:9091"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 for a failure, 2 for a wrong flag, 78 for a wrong setting."""
    default_environment(GRPC_VERBOSITY="ERROR")  # its core writes lines of its own to standard error otherwise
    try:
        app(args=arguments, prog_name="neurogate")
    except NeuroGateError as error:
        print(f"neurogate: {error}", file=sys.stderr)
        sys.exit(EXIT_CONFIG if isinstance(error, ConfigError) else 1)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"neurogate {__version__}{' (compiled)' if _compiled() else ''}")
        raise typer.Exit


def _compiled() -> bool:
    """Whether the hot path is compiled code (ADR 0030)."""
    exchange = find_spec("neurogate.dataplane.exchange")
    return exchange is not None and not str(exchange.origin).endswith(".py")


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Serve language models from a fleet of ordinary machines."""


@app.command()
@takes(FileSettings, *sections(GatewayConfig).values())
def gateway(flags: Flags) -> None:
    """Run a gateway: the HTTP API in front of the workers."""
    effective = flags.source(GatewayConfig).read()
    from neurogate.gateway import app as gateway_app

    raise typer.Exit(gateway_app.main(effective))


@app.command()
@takes(FileSettings, *sections(WorkerConfig).values())
def worker(flags: Flags) -> None:
    """Run a worker: one inference engine behind gRPC."""
    config = flags.load_config(WorkerConfig)
    from neurogate.cli import models as model_files

    model_files.ensure(config.engine, config.models)
    from neurogate.worker import app as worker_app

    raise typer.Exit(worker_app.main(config))


@app.command()
@takes(FileSettings, EngineSettings, SimSettings, also=GATEWAY_PORTS)
def up(
    flags: Flags,
    *,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many workers.")] = 3,
    host: Annotated[str, typer.Option(help="Address of the gateway's ports. [NEUROGATE_HOST, default 127.0.0.1]")] = "",
    key: Annotated[list[str] | None, typer.Option(help="A bearer key; may be given several times.")] = None,
    rolling: Annotated[
        bool, typer.Option("--rolling", help="Restart a running fleet, one process at a time, and lose no request.")
    ] = False,
    run: Annotated[
        str, typer.Option(help="With --rolling: the directory of its logs, when several run.", metavar="DIR")
    ] = "",
) -> None:
    """Run a gateway and workers on this machine until Ctrl-C; restart those that die.

    The ports are the gateway's. One that is set, by flag, environment or file, is used or is an error; the others move
    on when they are taken. Workers listen on 127.0.0.1: gRPC on GRPC_PORT (50051) and the ports after it, one each; ops
    on the ports after METRICS_PORT, or in a file from worker.metrics_port (9090) on. WORKER_ADDRESSES are chosen here.
    All other settings come from the environment and the file.
    """
    if rolling:
        from neurogate.local import rolling as local_rolling

        raise typer.Exit(local_rolling.main(run))
    from neurogate.local import up as local_up

    settings = flags.given | ({"NEUROGATE_HOST": host} if host else {})
    request = FleetRequest(workers=workers, keys=tuple(key or ()), settings=settings)
    raise typer.Exit(local_up.main(request))


@app.command()
def demo(
    workers: Annotated[int, typer.Option(min=2, max=16, help="How many workers.")] = 3,
) -> None:
    """Show it all: a fleet with a real model, a prompt, a worker that dies, and the next prompt answered."""
    from neurogate.local import demo as local_demo

    raise typer.Exit(local_demo.main(workers=workers))


@app.command(name="sim-engine")
@takes(SimSettings)
def sim_engine(
    flags: Flags,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of its HTTP API.")] = 8089,
    host: Annotated[str, typer.Option(help="Address of its HTTP API.")] = "127.0.0.1",
    model: Annotated[str, typer.Option(help="Name of the model that it pretends to have.")] = "sim",
) -> None:
    """Run a simulated engine that speaks the OpenAI API, for tests and benchmarks."""
    from neurogate.cli import sim

    raise typer.Exit(sim.main(flags.load(SimSettings), host=host, port=port, model=model))


@app.command()
def health(url: Url = DEFAULT_URL, tls_ca: TlsCa = "") -> None:
    """Ask a gateway, or a worker's ops port, how it is; the exit code is 0 when it is well."""
    from neurogate.cli import ask

    raise typer.Exit(ask.health(url, tls_ca=tls_ca))


@app.command()
def workers(
    url: Url = DEFAULT_URL,
    json: Annotated[bool, typer.Option("--json", help="Print the gateway's own JSON.")] = False,
    key: Annotated[str, typer.Option(help="An API key, for a gateway with WORKERS_AUTH.")] = "",
    tls_ca: TlsCa = "",
) -> None:
    """Show the workers of a running gateway."""
    from neurogate.cli import ask

    raise typer.Exit(ask.workers(url, json=json, key=key, tls_ca=tls_ca))


@app.command()
def top(
    url: Annotated[str, typer.Option(help="Base URL of a gateway's ops port (METRICS_PORT).")] = DEFAULT_OPS_URL,
    admin_key: Annotated[
        str, typer.Option(help="Admin key, where it has one. [NEUROGATE_ADMIN_KEY]", show_default=False)
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one picture as JSON and end.")] = False,
    tls_ca: TlsCa = "",
) -> None:
    """Show what a gateway and its workers are doing now, until q or Ctrl-C."""
    from neurogate.cli import top as command

    raise typer.Exit(command.main(command.Source(url, admin_key, tls_ca), once=once, json=json))


@app.command()
def verify(
    *,
    direct: Annotated[str, typer.Option(metavar="HOST:PORT", help="The engine's HTTP API, or a worker's gRPC port.")],
    proxy: Annotated[str, typer.Option(metavar="HOST:PORT", help="The gateway in front of it.")],
    grpc: Annotated[bool, typer.Option("--grpc/--http", help="Which of the two; HTTP unless given.")] = False,
    calls: Annotated[int, typer.Option("-n", min=1, help="Streams, each with a marker of its own.")] = 64,
    concurrency: Annotated[int, typer.Option(min=1, help="Streams at once.")] = 64,
    key: Annotated[str, typer.Option(help="Bearer key for the proxy.")] = "",
    direct_key: Annotated[str, typer.Option(help="Bearer key for the direct side.")] = "",
    tls_ca: Annotated[str, typer.Option(help="CA (PEM) of an https://HOST:PORT.")] = "",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one call.")] = 120.0,
    model: Annotated[str, typer.Option(help="Model to ask for.")] = "",
    size_mib: Annotated[int, typer.Option(min=1, help="Size of the largest message.")] = 8,
    api: Annotated[list[str] | None, typer.Option(help="openai, llamacpp, anthropic or ollama; several times.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="A further gRPC method /package.Service/Name.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make the same calls directly and through a gateway, and compare; exits with 1 when anything differs."""
    from neurogate.cli import verify as command

    wanted = command.Wanted(
        direct, proxy, calls, concurrency, key, direct_key, tls_ca, timeout, model, size_mib << 20,
        api or ("openai", "llamacpp"), method or (),
    )  # fmt: skip
    raise typer.Exit(command.main(wanted, grpc=grpc, json=json))


@app.command()
def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/configuration.md.")] = False,
    json_schema: Annotated[bool, typer.Option("--json-schema", help="Print the schema of the file.")] = False,
) -> None:
    """Show every setting: its environment name, its default and what it does."""
    from neurogate.cli import reference

    print(reference.schema() if json_schema else reference.markdown() if markdown else reference.text(), end="")


@app.command()
def metrics(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/metrics.md.")] = False,
) -> None:
    """Show every metric: its name, its labels and what it tells."""
    from neurogate.cli import metrics_page

    print(metrics_page.markdown() if markdown else metrics_page.text(), end="")


@app.command()
def check(
    config: Annotated[str, typer.Option(help="Configuration file. [NEUROGATE_CONFIG]", metavar="FILE")] = "",
    process: Annotated[Process | None, typer.Option(help="Whose configuration; both unless given.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Check the configuration and show it, each value with where it comes from; exits with 78 when it is wrong."""
    from neurogate.cli import check as command

    wanted = [process.value] if process is not None else [each.value for each in Process]
    raise typer.Exit(command.main(wanted, config=config, json=json))


@admin.command(name="reload")
def admin_reload(url: Url = DEFAULT_URL, admin_key: AdminKey = "", tls_ca: TlsCa = "") -> None:
    """Have the gateway read its configuration and its keys again."""
    from neurogate.cli import admin as command

    raise typer.Exit(command.reload(command.AdminClient(url, admin_key, tls_ca)))


@admin.command(name="drain")
def admin_drain(url: Url = DEFAULT_URL, admin_key: AdminKey = "", tls_ca: TlsCa = "") -> None:
    """Have the gateway say that it is not ready, so that clients go elsewhere; what comes is served."""
    from neurogate.cli import admin as command

    raise typer.Exit(command.drain(command.AdminClient(url, admin_key, tls_ca), "drain"))


@admin.command(name="undrain")
def admin_undrain(url: Url = DEFAULT_URL, admin_key: AdminKey = "", tls_ca: TlsCa = "") -> None:
    """Take that back."""
    from neurogate.cli import admin as command

    raise typer.Exit(command.drain(command.AdminClient(url, admin_key, tls_ca), "undrain"))


@admin_config.command(name="get")
def admin_config_get(
    keys: Annotated[list[str] | None, typer.Argument(help="Sections or keys; all unless given.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the gateway's own JSON.")] = False,
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    tls_ca: TlsCa = "",
) -> None:
    """Show what is in force, each value with where it comes from."""
    from neurogate.cli import admin as command

    raise typer.Exit(command.show(command.AdminClient(url, admin_key, tls_ca), keys or [], as_json=json))


@admin_config.command(name="set")
def admin_config_set(
    assignments: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="KEY= takes a value away again.")],
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    tls_ca: TlsCa = "",
) -> None:
    """Change settings of the running gateway, until it is restarted."""
    from neurogate.cli import admin as command

    raise typer.Exit(command.change(command.AdminClient(url, admin_key, tls_ca), assignments))


@admin_workers.command(name="add")
def admin_workers_add(
    address: Annotated[str, typer.Argument(help="host:port of its gRPC listener.")],
    url: Url = DEFAULT_URL,
    admin_key: AdminKey = "",
    tls_ca: TlsCa = "",
) -> None:
    """Add a worker."""
    _admin_worker("add", address, url, admin_key, tls_ca)


@admin_workers.command(name="remove")
def admin_workers_remove(
    worker: WorkerId, url: Url = DEFAULT_URL, admin_key: AdminKey = "", tls_ca: TlsCa = ""
) -> None:
    """Take a worker out of the fleet; it finishes what it holds."""
    _admin_worker("remove", worker, url, admin_key, tls_ca)


@admin_workers.command(name="drain")
def admin_workers_drain(worker: WorkerId, url: Url = DEFAULT_URL, admin_key: AdminKey = "", tls_ca: TlsCa = "") -> None:
    """Let a worker have nothing new."""
    _admin_worker("drain", worker, url, admin_key, tls_ca)


@admin_workers.command(name="resume")
def admin_workers_resume(
    worker: WorkerId, url: Url = DEFAULT_URL, admin_key: AdminKey = "", tls_ca: TlsCa = ""
) -> None:
    """Let a drained worker have requests again."""
    _admin_worker("resume", worker, url, admin_key, tls_ca)


@admin_breakers.command(name="reset")
def admin_breakers_reset(
    worker: WorkerId, url: Url = DEFAULT_URL, admin_key: AdminKey = "", tls_ca: TlsCa = ""
) -> None:
    """Close a worker's breaker."""
    from neurogate.cli import admin as command

    raise typer.Exit(command.reset(command.AdminClient(url, admin_key, tls_ca), worker))


def _admin_worker(action: str, name: str, url: str, admin_key: str, tls_ca: str) -> None:
    from neurogate.cli import admin as command

    raise typer.Exit(command.worker(command.AdminClient(url, admin_key, tls_ca), action, name))


@models.command()
def fetch(model: Annotated[str, typer.Argument(help="A name or a hub reference.")] = DEFAULT_MODEL) -> None:
    """Fetch a model into the cache, unless it is there."""
    from neurogate.cli import models as command

    command.fetch(model)


@models.command(name="list")
def list_models() -> None:
    """Show the models that can be fetched and those that are there."""
    from neurogate.cli import models as command

    command.show()


@models.command()
def path(model: Annotated[str, typer.Argument(help="A name.")] = DEFAULT_MODEL) -> None:
    """Print the path of a model that is there; fail when it is not."""
    from neurogate.cli import models as command

    found: Path | None = command.path(model)
    if found is None:
        print(f"neurogate: {model} is not here yet: neurogate models fetch {model}", file=sys.stderr)
        raise typer.Exit(1)
    print(found)
