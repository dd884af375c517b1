"""Settings: precedence, origins, and every problem at once with its place."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.inspect import type_info

from rapidd import settings
from rapidd.config import Config, EngineConfig, ModelConfig, ServerConfig, SloConfig, read_resolved
from rapidd.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "rapidd.toml"
    path.write_text(text, encoding="utf-8")
    return path


def to_toml(tables: dict[str, dict[str, object]]) -> str:
    """Keys and values as JSON, which TOML reads once DEL is escaped."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{json.dumps(name, ensure_ascii=False)}]")
        lines += [
            f"{json.dumps(key, ensure_ascii=False)} = {json.dumps(table[key], ensure_ascii=False)}" for key in table
        ]
    return "\n".join(lines).replace("\x7f", "\\u007f")


def problems_of(
    path: Path, environ: dict[str, str] | None = None, options: dict[str, object] | None = None
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        settings.load(path, environ or {}, typed(options or {}))
    return caught.value.problems


def typed(options: dict[str, object]) -> dict[str, tuple[str, object]]:
    """Key -> value as a command line would give it."""
    return {key: ("--option", value) for key, value in options.items()}


def test_without_any_layer_the_built_in_values_hold(tmp_path: Path) -> None:
    loaded = settings.load(write(tmp_path, ""), {})
    assert loaded.config == Config()
    assert loaded.origins == {}


def test_a_later_layer_wins_and_every_value_knows_its_origin(tmp_path: Path) -> None:
    path = write(tmp_path, "[engine]\nkv-blocks = 10\nblock-tokens = 8\nmax-batch-requests = 4\n")
    environ = {"RAPIDD__ENGINE__KV_BLOCKS": "20", "RAPIDD__ENGINE__BLOCK_TOKENS": "32", "PATH": "/bin"}
    loaded = settings.load(path, environ, {"engine.kv-blocks": ("--kv-blocks", 30)})
    assert loaded.config.engine == EngineConfig(kv_blocks=30, block_tokens=32, max_batch_requests=4)
    assert loaded.origins == {
        "engine.kv-blocks": "--kv-blocks",
        "engine.block-tokens": "RAPIDD__ENGINE__BLOCK_TOKENS",
        "engine.max-batch-requests": str(path),
    }


def test_all_problems_of_all_layers_are_reported_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [engine]
        block-tokens = "16"
        block_tokens = 16
        device = "gpu"
        max-chunk-s = nan
        [server]
        listen = "tcp://0.0.0.0:1"
        drain-timeout-s = inf
        [modell]
        path = "x"
        """,
    )
    environ = {"RAPIDD__ENGINE__KV_BLOCKS": "many", "RAPIDD__ENGINE__KV_BLOCK": "1", "RAPIDD__NOPE": "1"}
    problems = problems_of(path, environ, {"slo.itl-s": -1.0})
    expected = [
        f"{path}: engine.block-tokens: Expected `int | null`, got `str`",
        f"{path}: engine.block_tokens: unknown key; did you mean engine.block-tokens?",
        f"{path}: engine.device: Invalid enum value 'gpu'; use one of auto, cpu, cuda, hip",
        f"{path}: engine.max-chunk-s: Expected `float` > 0.0",
        f"{path}: server.listen: 'tcp://0.0.0.0:1' is no ipc endpoint",
        f"{path}: server.drain-timeout-s: Expected `float` <= 86400.0",
        f"{path}: modell: unknown section; did you mean model?",
        "RAPIDD__ENGINE__KV_BLOCKS: engine.kv-blocks: Expected `int | null`, got `str`",
        "RAPIDD__ENGINE__KV_BLOCK: unknown key; did you mean RAPIDD__ENGINE__KV_BLOCKS?",
        "RAPIDD__NOPE: unknown key",
        "--option: Expected `float` >= 1e-06",
    ]
    assert len(problems) == len(expected)
    for start in expected:
        assert any(problem.startswith(start) for problem in problems), (start, problems)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("[engine\n", "line 1"),
        ("engine = 3\n", "engine: must be a table: [engine]"),
        ("[[engine]]\n", "engine: must be a table: [engine]"),
        ("[engine]\nkv-blocks = 1\nkv-blocks = 2\n", "line 3"),
        ("[engine]\nkv-blocks = true\n", "engine.kv-blocks: Expected `int | null`, got `bool`"),
        ("[engine]\npolicy = 2026-01-01\n", "engine.policy: Expected `str`, got `date`"),
        ("[engine]\npolicy = ['auto']\n", "engine.policy: Expected `str`, got `array`"),
    ],
)
def test_a_malformed_file_is_one_clear_problem(tmp_path: Path, text: str, fragment: str) -> None:
    path = write(tmp_path, text)
    (problem,) = problems_of(path)
    assert problem.startswith(f"{path}: ")
    assert fragment in problem


def test_a_file_that_is_missing_or_no_text_is_a_problem(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "absent.toml") == [f"{tmp_path / 'absent.toml'}: No such file or directory"]
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    assert len(problems_of(path)) == 1
    assert len(problems_of(tmp_path)) == 1


def test_a_problem_of_one_layer_does_not_hide_those_of_another(tmp_path: Path) -> None:
    problems = problems_of(tmp_path / "absent.toml", {"RAPIDD__SLO__ITL_S": "0"})
    assert [problem.split(":")[0] for problem in problems] == [str(tmp_path / "absent.toml"), "RAPIDD__SLO__ITL_S"]


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"model.shape": "smollm2-135m"}, 'only means something with model.weights = "random"'),
        ({"engine.policy": "fastest"}, "unknown policy 'fastest'"),
        ({"engine.policy": "split"}, "needs a number"),
        ({"engine.policy": "split:2", "engine.compute-units": 2}, "leaves prefill nothing of engine.compute-units"),
        (
            {"engine.kv-blocks": 3, "engine.block-tokens": 1},
            "engine.kv-blocks: 3 blocks of engine.block-tokens = 1 hold",
        ),
        ({"server.listen": "ipc:///" + "x" * 120}, "bytes long and Linux allows 107"),
        ({"server.listen": "ipc://relative/request.sock"}, "absolute"),
    ],
)
def test_contradictions_between_keys_are_problems(tmp_path: Path, options: dict[str, object], fragment: str) -> None:
    """Such as a cache that cannot hold what the warm-up computes: an index out of bounds was all that was said."""
    (problem,) = problems_of(write(tmp_path, ""), options=options)
    assert fragment in problem


@pytest.mark.parametrize(
    "options",
    [
        {"model.shape": "smollm2-135m", "model.weights": "random"},
        {"engine.policy": "split:1", "engine.compute-units": 2},
        {"engine.policy": "serial:all"},
        {"engine.kv-blocks": 4, "engine.block-tokens": 1},
        {"engine.kv-blocks": 2},
        {"engine.block-tokens": 1},
        {"server.listen": "ipc:///run/rapidd/request.sock"},
    ],
)
def test_consistent_settings_load(tmp_path: Path, options: dict[str, object]) -> None:
    loaded = settings.load(write(tmp_path, ""), {}, typed(options))
    values = dict(settings.values_of(loaded.config))
    assert {key: values[key] for key in options} == options


def test_every_time_and_share_has_an_upper_bound(tmp_path: Path) -> None:
    """An objective of 1e300 s killed the engine at its first request, a drain timeout of as much the front when it was
    told to stop: neither number has nanoseconds."""
    fractions = [key for key, field in settings.FIELDS.items() if "FloatType" in str(type_info(field.type))]
    assert len(fractions) > 10
    for key in fractions:
        for value in ("1e300", "inf", "nan"):
            (problem,) = problems_of(write(tmp_path, ""), {settings.variable_name(key): value})
            assert f"{key}: Expected `float` " in problem


def test_a_text_that_is_empty_is_refused_by_its_name(tmp_path: Path) -> None:
    """As of a variable that was not set: an empty model was the folder in which the daemon happened to be started."""
    texts = [key for key, field in settings.FIELDS.items() if "StrType" in str(type_info(field.type))]
    assert "model.path" in texts
    for key in set(texts) - {"faults.points"}:  # of which none are the rule
        problems = problems_of(
            write(tmp_path, ""), {settings.variable_name(key): "", "RAPIDD__MODEL__WEIGHTS": "random"}
        )
        assert [key in problem for problem in problems] == [True]


@pytest.mark.parametrize("key", ["slo.itl-s", "slo.ttft-floor-s", "slo.ttft-per-1k-s"])
def test_an_objective_is_something_that_times_are_divided_by(tmp_path: Path, key: str) -> None:
    """One of 5e-324 s made infinity of the first token's time, which ended the front, and the next one."""
    (problem,) = problems_of(write(tmp_path, ""), {settings.variable_name(key): "5e-324"})
    assert f"{key}: Expected `float` >= 1e-06" in problem


def test_a_bad_value_is_not_blamed_twice(tmp_path: Path) -> None:
    """`weights` is wrong, so nothing can be said about `shape` needing random weights."""
    path = write(tmp_path, '[model]\nweights = "randm"\nshape = "smollm2-135m"\n')
    (problem,) = problems_of(path)
    assert "model.weights" in problem


def test_what_the_children_read_is_what_was_resolved(tmp_path: Path) -> None:
    config = Config(model=ModelConfig(path="~/modèles/ein Modell"), engine=EngineConfig(max_chunk_s=0.25))
    path = tmp_path / "config.json"
    path.write_bytes(msgspec.json.encode(config))
    assert read_resolved(path) == config
    path.write_bytes(b"{")
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_resolved(path)


_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
_seconds = st.floats(min_value=1e-6, max_value=60, allow_nan=False)
_count = st.integers(min_value=2, max_value=1024)
_configs = st.builds(
    Config,
    model=st.builds(
        ModelConfig,
        path=_text,
        tokenizer=st.none() | _text,
        dtype=st.sampled_from(["auto", "float32", "bfloat16"]),
        max_model_len=st.none() | st.integers(16, 2**40),
    ),
    engine=st.builds(
        EngineConfig,
        device=st.sampled_from(["auto", "cpu", "cuda", "hip"]),
        kv_blocks=st.none() | _count,
        block_tokens=st.none() | _count,
        max_chunk_s=st.none() | _seconds,
        policy=st.sampled_from(["auto", "shared", "serial:all", "hybrid:512"]),
    ),
    server=st.builds(ServerConfig, drain_timeout_s=_seconds, snapshot_hz=st.floats(0.1, 20)),
    slo=st.builds(SloConfig, itl_s=st.none() | _seconds),
)


@given(config=_configs)
def test_any_configuration_survives_being_shown_and_read_again(
    config: Config, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(
        tmp_path_factory.getbasetemp(),
        settings.to_toml(settings.Loaded(config, {}), effective=True, origin=True),
    )
    assert settings.load(path, {}).config == config


@given(config=_configs)
def test_any_configuration_can_come_from_the_environment(
    config: Config, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environ: dict[str, str] = {
        settings.variable_name(key): str(value) for key, value in settings.values_of(config) if value is not None
    }
    loaded = settings.load(write(tmp_path_factory.getbasetemp(), ""), environ)
    assert loaded.config == config
    assert set(loaded.origins.values()) == set(environ)


@given(
    tables=st.dictionaries(
        st.sampled_from([*settings.SECTIONS, "other"]) | _text,
        st.dictionaries(
            st.sampled_from([key.partition(".")[2] for key in settings.FIELDS]) | _text,
            st.booleans() | st.integers(-(2**63), 2**63 - 1) | _seconds | _text | st.lists(_text),
            max_size=4,
        ),
        max_size=4,
    )
)
def test_a_random_document_loads_or_says_why_not(
    tables: dict[str, dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing but `ConfigError` ever comes out, and a document that loads was understood in full."""
    path = tmp_path_factory.getbasetemp() / "random.toml"
    path.write_text(to_toml(tables), encoding="utf-8")
    try:
        loaded = settings.load(path, {})
    except ConfigError as error:
        assert error.problems  # noqa: PT017
    else:
        assert set(loaded.origins) == {f"{name}.{key}" for name, table in tables.items() for key in table}
