#!/usr/bin/env bash
# Everything in docs/gpu-tests.md that pytest runs on a GPU: `bash tests/gpu.sh [tests|sanitize]`, from anywhere.
# Takes the python3 of the system (PYTHON=...), which needs torch, triton, cuda-bindings, nvidia-ml-py, pyzmq, msgspec,
# tokenizers, safetensors, gguf, jinja2, psutil, hypothesis and pytest. Each part writes its output to $OUT (default:
# build/gpu), has a limit in seconds, and runs even if another one failed. The time of each is printed at the end; the
# exit code says whether all passed.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-build/gpu}
mkdir -p "$OUT"
rm -f "$OUT"/{tests,memcheck,racecheck}-*.txt
export PYTHONPATH=rapidctl:daemon:kernels:tests${PYTHONPATH:+:$PYTHONPATH}
# The project's own pytest configuration is for its development environment.
PYTEST=("$PYTHON" -m pytest -c /dev/null --rootdir . --import-mode=importlib -q -rs -p no:cacheprovider)
failed=()

part() { # name, limit in seconds, command
	local name=$1 limit=$2 begin=$SECONDS status
	shift 2
	timeout --kill-after=10 "$limit" "$@" >"$OUT/$name.txt" 2>&1
	status=$?
	printf '== %s: exit %d after %d s\n' "$name" "$status" $((SECONDS - begin)) >>"$OUT/$name.txt"
	tail -n 13 "$OUT/$name.txt"
	return "$status"
}

alone() { # a part while nothing else runs
	part "$@" || failed+=("$1")
}

pids=() names=()
beside() { # a part beside the ones begun before; `gather` waits for them
	part "$@" &
	pids+=($!) names+=("$1")
}

gather() {
	local index
	for index in "${!pids[@]}"; do
		wait "${pids[$index]}" || failed+=("${names[$index]}")
	done
	pids=() names=()
}

case ${1:-tests} in
tests)
	alone tests-partition 60 "${PYTEST[@]}" tests/rapidd/partition/test_cuda.py tests/rapidd/telemetry/test_nvidia_gpu.py
	# Most of the kernels' time is compilation, by the host: shares side by side.
	for share in decode chunks mixed one; do
		beside "tests-kernels-$share" 150 "${PYTEST[@]}" tests/rapid_kernels/test_gpu_kernels_device.py -k "every_call and $share"
	done
	beside tests-kernels-other 150 "${PYTEST[@]}" tests/rapid_kernels/test_gpu_kernels_device.py -k "not every_call"
	beside tests-golden 150 "${PYTEST[@]}" tests/rapidd/engine/test_gpu_golden.py
	gather
	# One of them takes all memory that is free.
	alone tests-engine 120 "${PYTEST[@]}" tests/rapidd/engine/test_gpu_device.py
	alone tests-calibration 120 "${PYTEST[@]}" tests/rapidd/calibrate/test_gpu_calibration.py
	;;
sanitize)
	# Slow by one to two orders of magnitude: a share of the kernels' check, and one short test of the engine. What is
	# counted is memory alone: cuda-bindings asks the driver for functions that are newer than it.
	memcheck=(compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 9)
	# racecheck sees our kernels alone: with torch's and the libraries' it does not end. Of the engine it ends with an
	# internal error of its own.
	ours=()
	for name in skinny_matmul slim_matmul finish_matmul decode_attention merge_kernel add_rms_norm rope_and_cache silu_mul plan_decode \
		plan_prompts prompt_attention merge_pieces best_of_piece choose_kernel; do
		ours+=(--kernel-name "kns=$name")
	done
	beside memcheck-kernels 240 "${memcheck[@]}" "$PYTHON" kernels/bench/bench_gpu.py --check 1 14
	beside racecheck-kernels 240 compute-sanitizer --tool racecheck "${ours[@]}" --error-exitcode 9 \
		"$PYTHON" kernels/bench/bench_gpu.py --check 3 56
	beside memcheck-engine 240 "${memcheck[@]}" "${PYTEST[@]}" tests/rapidd/engine/test_gpu_device.py -k "every_mode and hybrid"
	gather
	;;
*)
	echo "usage: bash tests/gpu.sh [tests|sanitize]" >&2
	exit 2
	;;
esac
printf '\nafter %d s in all\n' "$SECONDS"
(cd "$OUT" && grep -h '^== ' tests-*.txt memcheck-*.txt racecheck-*.txt 2>/dev/null)
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
