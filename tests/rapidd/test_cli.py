"""The contract of `rapidd` as a shell sees it: streams, exit status, JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from rapidctl import __version__
from rapidd.policy.profile import save_profile
from rapidd.settings import FIELDS
from support.process import python_module, run
from support.profiles import PROFILE


def rapidd(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return run(python_module("rapidd.cli", *arguments), **environ)


@pytest.fixture
def empty(tmp_path: Path) -> str:
    """A configuration file that says nothing, so that this machine's own is not read."""
    path = tmp_path / "rapidd.toml"
    path.touch()
    return str(path)


def test_version() -> None:
    assert rapidd("version").stdout == f"rapidd {__version__}\n"
    answer = rapidd("version", "--json").stdout
    assert json.loads(answer) == {"schema_version": 1, "version": __version__}
    assert answer.startswith('{"schema_version"')


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("config",),
        ("serve", "--device", "tpu"),
        ("serve", "--kv-blocks", "many"),
        ("serve", "--no-such-option"),
        ("serve", "--weights", "none"),
        ("calibrate", "--seconds", "0"),
        ("calibrate", "--profile", "f"),
        ("profile", "show"),
        ("profile", "show", "f", "--context", "-1"),
    ],
)
def test_usage_errors_exit_2_and_say_how(arguments: tuple[str, ...]) -> None:
    answer = rapidd(*arguments)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "usage: rapidd" in answer.stderr


def test_serve_reports_every_problem_and_exits_78(tmp_path: Path) -> None:
    file = tmp_path / "rapidd.toml"
    file.write_text("[engine]\nblock-token = 1\n")
    answer = rapidd(
        "serve", "--config", str(file), "--kv-blocks", "1", "--policy", "fast", RAPIDD__SLO__ITL_S="-1"
    )  # fmt: skip
    assert (answer.returncode, answer.stdout) == (78, "")
    assert answer.stderr.splitlines() == [
        f"rapidd: {file}: engine.block-token: unknown key; did you mean engine.block-tokens?",
        "rapidd: RAPIDD__SLO__ITL_S: slo.itl-s: Expected `float` >= 1e-06",
        "rapidd: --kv-blocks: Expected `int` >= 2",
        "rapidd: --policy: engine.policy: " + answer.stderr.splitlines()[3].partition("engine.policy: ")[2],
    ]
    assert "unknown policy 'fast'" in answer.stderr


@pytest.mark.parametrize(
    ("listen", "fragment"),
    [
        ("tcp://127.0.0.1:5555", "rapidd: --listen: server.listen: 'tcp"),
        (f"ipc:///{'x' * 200}", "201 bytes long"),
        ("ipc://a", "absolute"),
    ],
)
def test_serve_refuses_an_endpoint_that_cannot_be_bound(empty: str, listen: str, fragment: str) -> None:
    answer = rapidd("serve", "--config", empty, "--listen", listen)
    assert answer.returncode == 78
    assert fragment in answer.stderr


def test_serve_refuses_a_bad_endpoint_from_the_environment(empty: str) -> None:
    answer = rapidd("serve", "--config", empty, RAPIDCTL_ENDPOINT="nonsense")
    assert answer.returncode == 78
    assert "'nonsense' is no ipc endpoint" in answer.stderr


def test_serve_says_that_the_runtime_directory_cannot_be_made(empty: str, folder: Path) -> None:
    in_the_way = folder / "file"
    in_the_way.touch()
    answer = rapidd("serve", "--config", empty, "--listen", f"ipc://{in_the_way}/request.sock")
    assert answer.returncode == 78
    assert str(in_the_way) in answer.stderr
    assert "--listen" in answer.stderr


def test_config_check(tmp_path: Path, empty: str) -> None:
    good = rapidd("config", "check", "--config", empty)
    assert (good.returncode, good.stdout, good.stderr) == (0, "the configuration is valid\n", "")
    assert json.loads(rapidd("config", "check", "--config", empty, "--json").stdout) == {
        "schema_version": 1,
        "ok": True,
        "problems": [],
    }
    bad = tmp_path / "bad.toml"
    bad.write_text("[engine]\nkv-blocks = 1\nnope = 2\n")
    text = rapidd("config", "check", "--config", str(bad))
    assert (text.returncode, text.stdout) == (78, "")
    document = rapidd("config", "check", "--config", str(bad), "--json")
    assert (document.returncode, document.stderr) == (78, "")
    problems = json.loads(document.stdout)["problems"]
    assert [f"rapidd: {problem}" for problem in problems] == text.stderr.splitlines()
    assert len(problems) == 2


def test_config_check_looks_at_the_files_that_are_named(tmp_path: Path) -> None:
    """A configuration was valid that `rapidd serve` and `rapidd http` then refused."""
    file = tmp_path / "rapidd.toml"
    for text, said in (
        ('[model]\npath = "/nonexistent"\n', "model: no model at /nonexistent (--model takes a Hugging Face folder"),
        ('[model]\nweights = "random"\nshape = "nope"\n', "model: unknown shape 'nope' (known: llama-3.1-8b"),
        ('[http]\nhost = "0.0.0.0"\n', "http.host: 0.0.0.0 can be reached from other machines, so API keys are needed"),
        ('[http]\napi-keys = "/nonexistent"\n', "http.api-keys: /nonexistent: "),
    ):
        file.write_text(text)
        answer = rapidd("config", "check", "--config", str(file))
        assert (answer.returncode, answer.stdout) == (78, "")
        assert answer.stderr.startswith(f"rapidd: {said}")
        assert len(answer.stderr.splitlines()) == 1


OPERATORS_SIDE = """
import sys
sys.modules.update(dict.fromkeys(("torch", "numpy", "tokenizers", "jinja2", "psutil")))
from rapidd.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_where_only_the_operators_side_is_installed_the_daemon_says_what_it_lacks(empty: str, tmp_path: Path) -> None:
    """`rapidd doctor`, which is there to say so, was the first to crash; `serve` tried six times, and systemd again."""
    other = tmp_path / "other.toml"
    other.write_text('[model]\npath = "/nonexistent"\n')
    for words, file in (("serve", empty), ("calibrate", empty), ("config check", str(other))):
        answer = run([sys.executable, "-P", "-c", OPERATORS_SIDE, *words.split(), "--config", file])
        assert (answer.returncode, answer.stderr) == (
            78,
            "rapidd: not installed: torch, numpy, tokenizers, jinja2, psutil: "
            "install the extra daemon, rapid-serve[daemon]\n",
        )
    answer = run([sys.executable, "-P", "-c", OPERATORS_SIDE, "doctor", "--config", empty])
    assert (answer.returncode, answer.stderr) == (1, "")
    assert "cannot read models" in answer.stdout


def test_keys_for_tcp_are_wanted_of_the_daemon_and_of_a_check_that_can_find_them(tmp_path: Path) -> None:
    """With `[tcp]` in the file that all units read, the HTTP server, the doctor and a check outside of the unit ended
    with 78: they looked for the daemon's credentials, which only its unit has."""
    file = tmp_path / "rapidd.toml"
    file.write_text('[tcp]\nlisten = "tcp://127.0.0.1:7071"\n[http]\nuds = "/dev/null/http.sock"\n')
    check = ("config", "check", "--config", str(file))
    assert rapidd(*check).returncode == 0
    missing = f"tcp.key: tcp needs keys, and {tmp_path}/curve.key cannot be read: see rapidctl keys --help"
    inside = rapidd(*check, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert (inside.returncode, inside.stderr) == (78, f"rapidd: {missing}\n")
    served = rapidd("serve", "--config", str(file), CREDENTIALS_DIRECTORY=str(tmp_path))
    assert (served.returncode, served.stderr) == (78, f"rapidd: {missing}\n")
    http = rapidd("http", "--config", str(file), CREDENTIALS_DIRECTORY=str(tmp_path))
    assert "tcp" not in http.stderr
    assert "cannot listen on /dev/null/http.sock" in http.stderr
    file.write_text(f'[tcp]\nlisten = "tcp://127.0.0.1:7071"\nkey = "/{"x" * 300}"\n')
    assert rapidd(*check).returncode == 78, "one that may not even be looked at is no bug"


def test_config_show_is_a_file_that_says_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[model]\npath = "a \\"b\\""\n[engine]\nkv-blocks = 7\n')
    shown = rapidd("config", "show", "--config", str(file), RAPIDD__ENGINE__POLICY="shared").stdout
    assert shown == '[model]\npath = "a \\"b\\""\n\n[engine]\nkv-blocks = 7\npolicy = "shared"\n'
    effective = rapidd("config", "show", "--config", str(file), "--effective", "--origin").stdout
    assert f"kv-blocks = 7  # {file}\n" in effective
    assert 'policy = "auto"  # built-in\n' in effective
    again = tmp_path / "b.toml"
    again.write_text(effective)
    documents = [
        json.loads(rapidd("config", "show", "--config", str(path), "--json").stdout)["config"] for path in (file, again)
    ]
    assert documents[0] == documents[1]


def test_config_show_json_gives_every_key_and_its_origin(empty: str) -> None:
    document = json.loads(rapidd("config", "show", "--config", empty, "--json", RAPIDD__SLO__ITL_S="0.1").stdout)
    assert next(iter(document)) == "schema_version"
    assert set(document["origins"]) == set(FIELDS)
    assert document["config"]["slo"]["itl-s"] == 0.1
    assert document["origins"]["slo.itl-s"] == "RAPIDD__SLO__ITL_S"
    assert document["origins"]["engine.policy"] == "built-in"


def test_config_schema_names_every_key() -> None:
    schema = json.loads(rapidd("config", "schema").stdout)["$defs"]
    sections = {name: entry["$ref"].rpartition("/")[2] for name, entry in schema["Config"]["properties"].items()}
    keys = {f"{section}.{key}" for section, definition in sections.items() for key in schema[definition]["properties"]}
    assert keys == set(FIELDS)


def test_doctor_exits_1_and_says_what_to_do(empty: str, folder: Path) -> None:
    answer = rapidd(
        "doctor", "--config", empty, "--model", "/nowhere", "--listen", f"ipc://{folder}/run/request.sock", "--json"
    )
    document = json.loads(answer.stdout)
    findings = {finding["check"]: finding for finding in document["findings"]}
    assert (answer.returncode, answer.stderr, document["ok"]) == (1, "", False)
    assert findings["model"]["level"] == "fail"
    assert "no model at /nowhere" in findings["model"]["text"]
    assert findings["model"]["hint"]
    assert findings["device"]["text"].startswith("torch ")
    assert not (folder / "run").exists()


# --- profiles


def test_a_profile_in_a_file_is_shown_as_the_daemon_shows_its_own(tmp_path: Path) -> None:
    short = tuple(sample for sample in PROFILE.prefill if sample.units == 4 or sample.context == 0)
    save_profile(replace(PROFILE, prefill=short), tmp_path / "p.json")
    answer = rapidd("profile", "show", str(tmp_path / "p.json"), "--slo-itl", "6ms", "--context", "512")
    assert (answer.returncode, answer.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in answer.stdout.splitlines()]
    assert "profile example on Example 4 (the configured file)" in lines
    assert "contexts long ones were not measured, so attention is an estimate: prefill on 2, 3 of 4 units" in lines
    assert "fewest decode units for 6 ms a step, 512 tokens a row:" in lines
    knee = json.loads(rapidd("profile", "show", str(tmp_path / "p.json"), "--json").stdout)["knee"]
    assert [row["rows"] for row in knee["rows"]] == [1, 2, 4, 8, 16, 32, 64]
    assert knee["itl_s"] == 0.05, "the default objective of such a device"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_profile_that_cannot_be_printed_is_no_bug(tmp_path: Path) -> None:
    save_profile(PROFILE, tmp_path / "p.json")
    command = python_module("rapidd.cli", "profile", "show", str(tmp_path / "p.json"))
    with Path("/dev/full").open("w") as full:
        answer = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (answer.returncode, answer.stderr) == (1, "rapidd: cannot write the output: No space left on device\n")


def test_a_profile_that_cannot_be_used_is_refused_wherever_it_is_named(tmp_path: Path, empty: str) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for command in (
        ("profile", "show", str(broken)),
        ("serve", "--config", empty, "--profile", str(broken)),
        ("config", "check", "--config", empty),
    ):
        answer = rapidd(*command, **({"RAPIDD__POLICY__PROFILE": str(broken)} if command[0] == "config" else {}))
        assert answer.returncode == 78
        assert "corrupt" in answer.stderr
        assert "rapidd calibrate" in answer.stderr
