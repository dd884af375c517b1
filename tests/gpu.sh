#!/usr/bin/env bash
# Everything in docs/gpu-tests.md that pytest runs on a GPU: `bash tests/gpu.sh [tests|sanitize]`, from anywhere.
# Takes the python3 of the system (PYTHON=...), which needs torch, triton, cuda-bindings, nvidia-ml-py, pyzmq, msgspec,
# tokenizers, gguf, jinja2, psutil, hypothesis and pytest. Each part writes its output to $OUT (default: build/gpu), has
# a limit in seconds, and runs even if another one failed; the exit code says whether all passed.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-build/gpu}
mkdir -p "$OUT"
export PYTHONPATH=rapidctl:daemon:kernels:tests${PYTHONPATH:+:$PYTHONPATH}
# The project's own pytest configuration is for its development environment.
PYTEST=("$PYTHON" -m pytest -c /dev/null --rootdir . --import-mode=importlib -q -rs -p no:cacheprovider)
failed=()

part() { # name, limit in seconds, command
	local name=$1 limit=$2 begin=$SECONDS status
	shift 2
	printf '== %s\n' "$name"
	timeout --kill-after=10 "$limit" "$@" >"$OUT/$name.txt" 2>&1
	status=$?
	tail -n 12 "$OUT/$name.txt"
	printf '== %s: exit %d after %d s\n' "$name" "$status" $((SECONDS - begin)) | tee -a "$OUT/$name.txt"
	[ "$status" -eq 0 ] || failed+=("$name")
}

case ${1:-tests} in
tests)
	part tests-partition 60 "${PYTEST[@]}" tests/rapidd/partition/test_cuda.py tests/rapidd/telemetry/test_nvidia_gpu.py
	part tests-kernels 210 "${PYTEST[@]}" tests/rapid_kernels/test_gpu_kernels_device.py
	part tests-engine 210 "${PYTEST[@]}" tests/rapidd/engine/test_gpu_device.py
	part tests-golden 90 "${PYTEST[@]}" tests/rapidd/engine/test_gpu_golden.py
	;;
sanitize)
	# Slow by one to two orders of magnitude: a share of the kernels' check, and one short test of the engine.
	short=(tests/rapidd/engine/test_gpu_device.py -k "every_mode and hybrid")
	part memcheck-kernels 60 compute-sanitizer --tool memcheck --error-exitcode 9 \
		"$PYTHON" kernels/bench/bench_gpu.py --check 1 14
	part racecheck-kernels 60 compute-sanitizer --tool racecheck --error-exitcode 9 \
		"$PYTHON" kernels/bench/bench_gpu.py --check 3 56
	part memcheck-engine 90 compute-sanitizer --tool memcheck --error-exitcode 9 "${PYTEST[@]}" "${short[@]}"
	part racecheck-engine 90 compute-sanitizer --tool racecheck --error-exitcode 9 "${PYTEST[@]}" "${short[@]}"
	;;
*)
	echo "usage: bash tests/gpu.sh [tests|sanitize]" >&2
	exit 2
	;;
esac
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
