"""Settings: what comes before what, and that nothing misspelt goes unnoticed."""

from pathlib import Path

import pytest

from rapidctl import keys, settings
from rapidctl.settings import ConfigError, Context

LAB = "ipc:///run/lab/request.sock"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "rapid" / "ctl.toml"
    monkeypatch.setenv("RAPIDCTL_CONFIG", str(path))
    monkeypatch.delenv("RAPIDCTL_ENDPOINT", raising=False)
    return path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def test_without_a_file_all_is_default(file: Path) -> None:
    loaded = settings.load()
    assert (loaded.settings, loaded.origin) == (settings.Settings(), {})


def test_a_user_without_a_home_has_no_file_and_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command ended as a bug of rapidctl for a user that is in no list and has no HOME, as in a container."""
    uid = 3_000_000_001
    for name in ("HOME", "XDG_CONFIG_HOME", "RAPIDCTL_CONFIG", "RAPIDCTL_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: uid)
    assert settings.load().settings == settings.Settings()
    assert keys.trusted() == {}
    assert not settings.expand("~nobody-of-that-name/model").exists()


def test_the_environment_comes_before_the_file_and_the_origin_is_told(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, 'theme = "light"\nascii = false\nrate_hz = 1\n[keys]\n"part.override" = "O"\n')
    monkeypatch.setenv("RAPIDCTL_ASCII", "1")
    loaded = settings.load()
    assert (loaded.settings.theme, loaded.settings.ascii, loaded.settings.rate_hz) == ("light", True, 1.0)
    assert loaded.settings.keys == {"part.override": "O"}
    assert (loaded.origin["theme"], loaded.origin["ascii"]) == (str(file), "RAPIDCTL_ASCII")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour = 1", "unknown field `colour`"),
        ('theme = "purple"', "purple"),
        ("rate_hz = 99", "<= 10"),
        ('context = "lab"', "no context 'lab'"),
        ("[contexts.lab]\nurl = 1", "unknown field `url`"),
        ("theme = ", "ctl.toml"),
    ],
)
def test_what_means_nothing_is_an_error_that_names_it(file: Path, text: str, words: str) -> None:
    write(file, text)
    with pytest.raises(ConfigError, match=words) as caught:
        settings.load()
    assert caught.value.exit_code == 2


def test_a_flag_in_the_environment_is_1_or_0(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPIDCTL_ASCII", "maybe")
    with pytest.raises(ConfigError, match="neither 1 nor 0"):
        settings.load()


def test_where_to_connect(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, f'context = "lab"\n[contexts.lab]\nendpoint = "{LAB}"\n[contexts.b]\nendpoint = "ipc:///b"\n')
    found = settings.load().settings
    assert settings.endpoint_of(found) == LAB
    assert settings.endpoint_of(found, "b") == "ipc:///b"
    monkeypatch.setenv("RAPIDCTL_ENDPOINT", "ipc:///from/environment")
    assert settings.endpoint_of(found) == "ipc:///from/environment"
    assert settings.endpoint_of(found, "b") == "ipc:///b", "a flag comes before the environment"
    with pytest.raises(ConfigError, match="there are lab, b"):
        settings.endpoint_of(found, "c")


def test_adding_and_choosing_contexts_keeps_what_else_the_file_says(file: Path) -> None:
    settings.add_context("lab", LAB)
    settings.add_context("b", "ipc:///b")
    write(file, f"# mine\n{file.read_text()}")
    settings.use_context("lab")
    settings.use_context("b")
    loaded = settings.load().settings
    assert loaded.context == "b"
    assert loaded.contexts == {"lab": Context(LAB), "b": Context("ipc:///b")}
    assert file.read_text().count("context =") == 1
    assert "# mine" in file.read_text()


@pytest.mark.parametrize("endpoint", [r"ipc:///a\tb", 'ipc:///a"b', "ipc:///ä"])
def test_an_endpoint_is_kept_as_it_was_typed(endpoint: str, file: Path) -> None:
    """A backslash began one of TOML's escapes: the context led to another socket."""
    settings.add_context("lab", endpoint)
    assert settings.load().settings.contexts == {"lab": Context(endpoint)}


def test_a_file_that_is_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    """It was replaced, and what it led to, where settings are kept for several machines, did not change."""
    kept = tmp_path / "kept.toml"
    kept.write_text("# mine\n")
    file.parent.mkdir()
    file.symlink_to(kept)
    settings.add_context("lab", LAB)
    assert file.is_symlink()
    assert "[contexts.lab]" in kept.read_text()


@pytest.mark.parametrize(
    ("name", "endpoint", "words"),
    [("a b", LAB, "no name"), ("a", "tcp://x", "no host and port"), ("lab", LAB, "already")],
)
def test_what_cannot_be_a_context_changes_nothing(file: Path, name: str, endpoint: str, words: str) -> None:
    settings.add_context("lab", LAB)
    before = file.read_text()
    with pytest.raises(ConfigError, match=words):
        settings.add_context(name, endpoint)
    with pytest.raises(ConfigError, match="no context"):
        settings.use_context("nowhere")
    assert file.read_text() == before


def test_the_template_is_the_defaults(file: Path) -> None:
    assert settings.init() == file
    assert settings.load().settings == settings.Settings()
    write(file, "\n".join(line.removeprefix("# ") for line in file.read_text().splitlines()[1:]))
    said = settings.load().settings
    assert said == settings.Settings(context="lab", contexts=said.contexts, keys={"part.override": "O"})
    with pytest.raises(ConfigError, match="exists already"):
        settings.init()
