"""`stnkit serve`: answer requests over HTTP and gRPC."""

from __future__ import annotations

import os
from pathlib import Path

import click

from stnkit.cli.extras import require_serve
from stnkit.cli.native_output import native_stderr_hidden
from stnkit.cli.options import artifact_option

_TOKEN = "STNKIT_MANAGEMENT_TOKEN"


@click.command(
    name="serve",
    short_help="Serve bundles over HTTP and gRPC.",
    epilog="Example: stnkit serve digits.bundle --http-port 8000",
)
@click.argument("bundles", metavar="[NAME[@VERSION]=]BUNDLE...", nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--http-port",
    type=click.IntRange(-1, 65535),
    default=8000,
    show_default=True,
    help="0 takes a free one, -1 serves no HTTP.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(-1, 65535),
    default=8001,
    show_default=True,
    help="0 takes a free one, -1 serves no gRPC.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="Where to run: cpu, cuda, cuda:N; auto takes a GPU that can be used.",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "litert", "onnxruntime"]),
    default="auto",
    show_default=True,
    help="What runs the models.",
)
@artifact_option
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Threads that share one run. Default: 1, which serves most; more answer a lone request "
    "of a large model sooner.",
)
@click.option(
    "--instances",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Batches of a model that run at once. Default: as many as the cores have room for.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1, 65536),
    metavar="N",
    help="Most items in one run. Default: 8 on a CPU, 32 on a GPU.",
)
@click.option(
    "--max-delay-ms",
    type=click.FloatRange(0, 60_000),
    default=0.0,
    show_default=True,
    metavar="X",
    help="How long a batch waits for more requests.",
)
@click.option(
    "--queue",
    type=click.IntRange(1, 1_000_000),
    default=256,
    show_default=True,
    metavar="N",
    help="Requests of a model that may wait; more are told to come back (503).",
)
@click.option(
    "--timeout-ms",
    type=click.FloatRange(0, 86_400_000, min_open=True),
    default=10_000.0,
    show_default=True,
    metavar="N",
    help="Time that a request may take.",
)
@click.option(
    "--model-control",
    type=click.Choice(["none", "explicit"]),
    default="none",
    show_default=True,
    help="explicit: clients that present the token may reload and unload models.",
)
@click.option(
    "--management-token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=f"File with that token. Default: the environment variable {_TOKEN}.",
)
@click.option(
    "--tls-certificate",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="PEM file of the certificate chain; with --tls-key.",
)
@click.option(
    "--tls-key",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="PEM file of its private key.",
)
@click.option(
    "--max-body-mb",
    type=click.IntRange(1, 2047),
    default=64,
    show_default=True,
    metavar="N",
    help="Largest request.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1, 100_000),
    default=1024,
    show_default=True,
    metavar="N",
    help="Connections at once, for each protocol.",
)
@click.option(
    "--drain-ms",
    type=click.FloatRange(0, 3_600_000),
    default=500.0,
    show_default=True,
    metavar="N",
    help="After SIGTERM: how long new requests are still answered while /v2/health/ready says no.",
)
@click.option(
    "--grace-s",
    type=click.FloatRange(0, 3600),
    default=30.0,
    show_default=True,
    metavar="N",
    help="How long accepted requests have to be answered after that.",
)
@click.option("--log-requests", is_flag=True, help="Log every request.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="One line of text or one JSON object an event, on stderr.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is logged at least.",
)
def command(
    bundles: tuple[str, ...],
    host: str,
    http_port: int,
    grpc_port: int,
    device: str,
    backend: str,
    artifact: str | None,
    threads: int | None,
    instances: int | None,
    max_batch: int | None,
    max_delay_ms: float,
    queue: int,
    timeout_ms: float,
    model_control: str,
    management_token_file: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    max_body_mb: int,
    max_connections: int,
    drain_ms: float,
    grace_s: float,
    log_requests: bool,
    log_format: str,
    log_level: str,
) -> None:
    """Serve bundles with the Open Inference Protocol (KServe V2), over HTTP and gRPC.

    A bundle is served under its own name, or under NAME; several of one name are its versions. Ends
    on SIGTERM or Ctrl-C, after every accepted request is answered.
    """
    require_serve()
    from stnkit.runtime.serving import Limits, ModelOptions, ServerOptions, ServingCore, run_server
    from stnkit.runtime.serving.options import parse_source
    from stnkit.runtime.serving.request_log import set_up_logging

    token = _token(management_token_file) if model_control == "explicit" else None
    options = ServerOptions(
        host=host,
        http_port=None if http_port < 0 else http_port,
        grpc_port=None if grpc_port < 0 else grpc_port,
        certificate=tls_certificate,
        key=tls_key,
        drain_ms=drain_ms,
        grace_s=grace_s,
        log_requests=log_requests,
    )
    core = ServingCore(
        [parse_source(text) for text in bundles],
        ModelOptions(
            device=device,
            backend=backend,
            artifact=artifact,
            threads=threads,
            instances=instances,
            max_batch=max_batch,
            max_delay_ms=max_delay_ms,
            queue=queue,
            timeout_ms=timeout_ms,
        ),
        Limits(body_bytes_max=max_body_mb * 2**20, connections_max=max_connections),
        management_token=token,
    )
    set_up_logging(log_format, log_level)
    run_server(
        core,
        options,
        announce=_announce,
        while_loading=native_stderr_hidden(),
    )


def _announce(address: str) -> None:
    try:
        click.echo(f"serving on {address}")
    except BrokenPipeError:  # who started this reads no further, which is no reason to end
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _token(file: Path | None) -> str:
    """Return the management token.

    Raises:
        InputError: there is none, or it is short.
    """
    from stnkit.runtime.errors import InputError

    if file is not None:
        try:
            token = file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise InputError(f"{file} cannot be read: expected a file with the token") from exc
        source = str(file)
    else:
        token, source = os.environ.get(_TOKEN, "").strip(), f"the environment variable {_TOKEN}"
    if len(token) < 16 or not token.isascii() or not token.isprintable():
        raise InputError(
            f"--model-control explicit takes a token of at least 16 printable ASCII characters: "
            f"{source} has none"
        )
    return token
