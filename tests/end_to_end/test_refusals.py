"""What cannot be served ends ``rapidd serve`` with status 78 and a message that names the culprit, and nothing else.

Here by whoever finds it; all that can be wrong with a model is in the tests of `rapidd.model`.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from support.daemon import MODEL, serve_command
from support.process import run

Break = Callable[[Path], object]


def serve(folder: Path, *options: str, wrap: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """A daemon that is expected to give up."""
    return run([*wrap, *serve_command(f"ipc://{folder}/run/request.sock", *options)])


def check_refused(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    assert done.returncode == 78, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def cut_a_tensor(model: Path) -> None:
    path = model / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.3.mlp.up_proj.weight"
    tensors[name] = np.ascontiguousarray(tensors[name][:-1])
    save_file(tensors, path)


BROKEN: dict[str, tuple[Break, tuple[str, ...]]] = {
    "a wrong shape, which the engine finds": (cut_a_tensor, ("model.layers.3.mlp.up_proj.weight", "172", "171")),
    "no tokenizer.json, which the front finds": (
        lambda model: (model / "tokenizer.json").unlink(),
        ("tokenizer.json",),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_model_that_cannot_be_served(folder: Callable[[], Path], case: str) -> None:
    place = folder()
    model = place / "model"
    shutil.copytree(MODEL, model)
    break_it, words = BROKEN[case]
    break_it(model)
    check_refused(serve(place, "--model", str(model)), *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max-model-len", "100000"), ("max-model-len", "100000", "512")),
        (("--policy", "fastest"), ("policy", "fastest")),
        (("--device", "cuda"), ("cuda",)),
    ],
    ids=" ".join,
)
def test_settings_that_this_machine_or_model_cannot_have(
    folder: Callable[[], Path], options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    if "cuda" in options and Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a CUDA device")
    check_refused(serve(folder(), "--model", str(MODEL), *options), *words)


def test_a_full_disk_under_the_runtime_directory(folder: Callable[[], Path]) -> None:
    """In a mount namespace of its own, whose runtime directory has not a byte left."""
    place = folder()
    (place / "run").mkdir()
    script = (
        'mount -t tmpfs -o size=64k,mode=0755 none "$0/run" || exit 99; '
        'cat /dev/zero > "$0/run/filler" 2>/dev/null; exec "$@"'
    )
    space = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(place))
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here, to mount a file system that is full")
    done = serve(place, "--model", str(MODEL), wrap=space)
    if done.returncode in (1, 99) and "rapidd" not in done.stderr:
        pytest.skip(f"no private mounts here: {done.stderr.strip()}")
    check_refused(done, f"{place}/run", "No space left on device", "--listen")
