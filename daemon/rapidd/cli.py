"""The command `rapidd`: serve, calibrate, profile, simulate, http, config, doctor, version. Only data goes to stdout.

Exit status: 0 ok, 1 refused or failed, 2 usage, 70 bug, 77 the device must be reset or replaced, 78 configuration
(also: model, device, endpoint, runtime directory). Imports no torch: the engine process alone pays for it.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
import traceback
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from rapidctl import __version__
from rapidctl.errors import OutputError
from rapidctl.wire import SCHEMA_VERSION, EndpointError, ProfileReply
from rapidd import settings
from rapidd.config import Config, SloConfig
from rapidd.engine.openmp import bound_spinning
from rapidd.errors import EXIT_CONFIG, EXIT_FAILED, ConfigError, ModelError, RapiddError
from rapidd.http import command as http_command
from rapidd.http import keys as http_keys
from rapidd.ipc import AskProfile
from rapidd.policy.calibration import Calibration
from rapidd.policy.cost import CostModel
from rapidd.policy.library import Found
from rapidd.policy.policies import GRAMMAR
from rapidd.policy.profile import load_profile
from rapidd.simulate.arguments import add_arguments as add_simulate_arguments
from rapidd.simulate.arguments import duration_s
from rapidd.telemetry.latency import resolve_slo

EXIT_BUG: Final = 70
EXIT_INTERRUPTED: Final = 130

DAEMON_PACKAGES: Final = ("torch", "numpy", "tokenizers", "jinja2", "psutil")
"""Of the extra `daemon`, those that serve every model."""
SERVE_OPTIONS: Final = {
    "--model": ("model.path", "PATH", "Hugging Face folder, .gguf file, or 'default' (SmolLM2-135M-Instruct)"),
    "--listen": ("server.listen", "ENDPOINT", "request socket, ipc:///PATH/request.sock"),
    "--device": ("engine.device", None, "where the model runs"),
    "--compute-units": ("engine.compute-units", "N", "cores, SMs or CUs to use; all by default"),
    "--dtype": ("model.dtype", None, "of weights and arithmetic"),
    "--policy": (
        "engine.policy",
        "P",
        GRAMMAR,
    ),
    "--max-model-len": ("model.max-model-len", "N", "longest prompt and output together, in tokens"),
    "--kv-blocks": ("engine.kv-blocks", "N", "size of the KV cache; measured by default"),
    "--weights": ("model.weights", None, "from the model's files, or random for benchmarks"),
    "--shape": ("model.shape", "S", "of random weights: llama-3.1-8b, smollm2-135m or a config.json"),
    "--profile": ("policy.profile", "FILE", "of rapidd calibrate; by default the one measured here, or shipped"),
    "--log-format": ("log.format", None, "of the lines on stderr; auto: JSON for systemd's journal"),
    "--tokenizer": ("model.tokenizer", "DIR", "folder with tokenizer.json, where the model has none"),
}
"""Option -> the key it sets, its metavar (null: the key's choices), and its help."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except ConfigError as error:
        _complain(*error.problems)
        return EXIT_CONFIG
    except RapiddError as error:
        _complain(str(error), error.hint)
        return EXIT_CONFIG
    except EndpointError as error:
        _complain(str(error))
        return EXIT_CONFIG
    except OutputError as error:
        _complain(str(error))
        sys.stderr.close()  # Python tries once more at exit
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of stdout has gone: head, less
        sys.stderr.close()
        return EXIT_FAILED
    except Exception:  # the process boundary: a bug, and it says so
        traceback.print_exc()
        _complain("this is a bug in rapidd: please report it with the lines above")
        return EXIT_BUG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rapidd", description="Serve an LLM, prefill and decode at the same time.")
    parser.add_argument("--version", action="version", version=f"rapidd {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="run the daemon until it is told to stop")
    serve.set_defaults(command=_serve)
    _add_serve_options(serve)

    calibrate = commands.add_parser("calibrate", help="measure this device and model, for predictions")
    calibrate.set_defaults(command=_calibrate)
    calibrate.add_argument("--seconds", type=_positive, default=90.0, metavar="S", help="in all, loading included (90)")
    calibrate.add_argument("--out", type=Path, metavar="FILE", help="where to write; the state directory by default")
    calibrate.add_argument("--note", default="", metavar="TEXT", help="a remark to keep in the profile")
    _add_json_option(calibrate)
    _add_serve_options(calibrate, without="--profile")

    profile = commands.add_parser("profile", help="show a profile that was written to a file")
    shown = profile.add_subparsers(title="actions", metavar="ACTION", required=True)
    show_file = shown.add_parser("show", help="its error, and the fewest decode units for an ITL objective")
    show_file.set_defaults(command=_profile_show)
    show_file.add_argument("file", type=Path, metavar="FILE")
    show_file.add_argument(
        "--slo-itl", type=duration_s, metavar="DUR", help="ITL objective, 25ms; the default of the profile's device"
    )
    show_file.add_argument("--context", type=_natural, default=1024, metavar="N", help="cached tokens a row (1024)")
    _add_json_option(show_file)

    simulated = commands.add_parser("simulate", help="what policies make of a request trace, without a device")
    simulated.set_defaults(command=_simulate)
    add_simulate_arguments(simulated)

    http = commands.add_parser("http", help="run the OpenAI-compatible HTTP server in front of a daemon")
    http.set_defaults(command=_http)
    http_command.add_arguments(http)
    _add_config_option(http)

    config = commands.add_parser("config", help="check, show or describe the configuration")
    actions = config.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="report every problem of file and environment; exit 0 or 78")
    check.set_defaults(command=_config_check)
    show = actions.add_parser("show", help="print the settings as TOML")
    show.set_defaults(command=_config_show)
    show.add_argument("--effective", action="store_true", help="every key, built-in values included")
    show.add_argument("--origin", action="store_true", help="say where each value comes from")
    for action in (check, show):
        _add_config_option(action)
        _add_json_option(action)
    schema = actions.add_parser("schema", help="print the JSON schema of the file")
    schema.set_defaults(command=_config_schema)

    doctor = commands.add_parser("doctor", help="say what this machine can serve with, and what is missing")
    doctor.set_defaults(command=_doctor)
    for option in ("--model", "--listen"):
        key, metavar, text = SERVE_OPTIONS[option]
        doctor.add_argument(option, dest=key, metavar=metavar, help=text)
    _add_config_option(doctor)
    _add_json_option(doctor)

    version = commands.add_parser("version", help="print the version")
    version.set_defaults(command=_version)
    _add_json_option(version)
    return parser


def _add_serve_options(parser: argparse.ArgumentParser, without: str = "") -> None:
    _add_config_option(parser)
    for option, (key, metavar, text) in SERVE_OPTIONS.items():
        choices = None if metavar else typing.get_args(settings.FIELDS[key].type)
        is_number = metavar == "N"
        if option != without:
            parser.add_argument(
                option, dest=key, metavar=metavar, choices=choices, type=int if is_number else str, help=text
            )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be more than zero")
    return value


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def _add_config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"TOML file; {settings.SYSTEM_FILE} if there is one"
    )


def _add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on one line")


def _load(arguments: argparse.Namespace) -> settings.Loaded:
    given = vars(arguments)
    known = http_command.OPTIONS if "make_key" in given else SERVE_OPTIONS
    options = {key: (option, given[key]) for option, (key, _, _) in known.items() if given.get(key) is not None}
    return settings.load(arguments.config, options=options)


def _need_packages() -> None:
    """Raise `ConfigError` where only the operator's side is installed."""
    missing = [name for name in DAEMON_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError([f"not installed: {', '.join(missing)}: install the extra daemon, rapid-serve[daemon]"])


def _serve(arguments: argparse.Namespace) -> int:
    from rapidd.supervisor.core import serve

    def load() -> Config:
        config = _load(arguments).config
        settings.check_keys(config.tcp)
        return config

    _need_packages()
    return serve(load(), load=load)


def _simulate(arguments: argparse.Namespace) -> int:
    from rapidd.simulate.command import run

    return run(arguments)


def _calibrate(arguments: argparse.Namespace) -> int:
    config = _load(arguments).config
    _need_packages()
    bound_spinning()
    import psutil

    from rapidd.calibrate.command import calibrate, summary  # imports torch: after the settings were checked

    spent_s = max(time.time() - psutil.Process().create_time(), 0.0)
    try:
        profile, path = calibrate(config, arguments.seconds, arguments.out, arguments.note, spent_s)
    except KeyboardInterrupt:
        _complain("interrupted: nothing was written")
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)  # a batch may still run: threads that outlive the interpreter crash it
    if arguments.json:
        fit = msgspec.to_builtins(CostModel(profile).fit)
        _print_json({"file": str(path), "name": profile.name, "seconds": profile.seconds, "fit": fit})
    else:
        print("\n".join(summary(profile, path)))
    return 0


def _profile_show(arguments: argparse.Namespace) -> int:
    from rapidctl.commands.profile import show
    from rapidctl.out import Out

    profile = load_profile(arguments.file)
    calibration = Calibration(Found(profile, "file"))
    itl_s = resolve_slo(SloConfig(), profile.key.device_kind).itl_s
    answer = calibration.answer(AskProfile(0, arguments.slo_itl, arguments.context), itl_s)
    reply = ProfileReply(
        call=0,
        calibration=answer.calibration,
        notes=answer.notes,
        itl_s=answer.itl_s,
        kv_per_row=answer.kv_per_row,
        knee=answer.knee,
    )
    return show(reply, Out(json=arguments.json, color="auto"))


def _http(arguments: argparse.Namespace) -> int:
    return http_command.run(arguments, lambda: _load(arguments).config)


def _config_check(arguments: argparse.Namespace) -> int:
    try:
        problems = _problems_of_files(settings.load(arguments.config).config)
    except ConfigError as error:
        problems = error.problems
    if arguments.json:
        _print_json({"ok": not problems, "problems": problems})
    elif problems:
        _complain(*problems)
    else:
        print("the configuration is valid")
    return EXIT_CONFIG if problems else 0


def _problems_of_files(config: Config) -> list[str]:
    """What the files that a valid configuration names would stop `serve` or `http` with. Opens no device.

    Credentials by their name are there for the unit alone.
    """
    problems: list[str] = []
    try:
        http_keys.of_server(config.http)
    except ConfigError as error:
        problems += error.problems
    try:
        if "CREDENTIALS_DIRECTORY" in os.environ or "/" in config.tcp.key + config.tcp.authorized_keys:
            settings.check_keys(config.tcp)
    except ConfigError as error:
        problems += error.problems
    if config.model.path != "default" or config.model.weights == "random":
        try:
            _need_packages()
            from rapidd.model.resolve import load_model  # imports what reads models

            load_model(config.model)
        except ConfigError as error:
            problems += error.problems
        except ModelError as error:
            problems.append(f"model: {error} ({error.hint})" if error.hint else f"model: {error}")
    return problems


def _config_show(arguments: argparse.Namespace) -> int:
    loaded = settings.load(arguments.config)
    if arguments.json:
        origins = {key: loaded.origins.get(key, settings.BUILT_IN) for key in settings.FIELDS}
        _print_json({"config": msgspec.to_builtins(loaded.config), "origins": origins})
    else:
        print(settings.to_toml(loaded, effective=arguments.effective, origin=arguments.origin), end="")
    return 0


def _config_schema(arguments: argparse.Namespace) -> int:
    print(json.dumps(msgspec.json.schema(Config), indent=2))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from rapidd import doctor

    findings = doctor.examine(_load(arguments).config)
    if arguments.json:
        _print_json({"ok": doctor.healthy(findings), "findings": msgspec.to_builtins(findings)})
    else:
        print("\n".join(doctor.render(findings)))
    return 0 if doctor.healthy(findings) else EXIT_FAILED


def _version(arguments: argparse.Namespace) -> int:
    if arguments.json:
        _print_json({"version": __version__})
    else:
        print(f"rapidd {__version__}")
    return 0


def _print_json(document: dict[str, object]) -> None:
    print(json.dumps({"schema_version": SCHEMA_VERSION, **document}, ensure_ascii=False))


def _complain(*lines: str) -> None:
    for line in lines:
        if line:
            print(f"rapidd: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
