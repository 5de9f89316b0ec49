#!/usr/bin/env bash
# Checks a machine with an NVIDIA or an AMD GPU, or an Ascend NPU, and writes one report: what is right, how fast it is, and
# what could not be run.
#
#   tools/device-check.sh [--device cuda:0 | --device rocm:0 | --device ascend:0] [--quick | --tiny] [--only CHECK,CHECK…] [--dir DIR] [--report FILE]
#
#   --quick    one model and fewer repetitions: some minutes
#   --tiny     sizes for an emulated device; its speeds mean nothing
#   --only     some of: devices runtime ops goldens generate capture sanitizer kernels cublaslt bench baseline; on an NPU
#              devices points ops operators goldens steady random-model generate
#   --dir      where random checkpoints of up to 47 GB are written (default: /dev/shm if it has room, or /tmp)
#   --report   the report, JSON (default: device-check.json)
#
# Needs the driver, and a program: $DEVICE_CHECK, or ./device-check beside this script, or cargo to build one. A program
# that was built elsewhere (cargo build --release -p conformance --bin device-check) can be carried here, with the
# repository's files. compute-sanitizer and Python with torch are used where they are; where not, the report says so.
set -euo pipefail

usage() {
    sed -n 's/^# \{0,1\}//p' "$0" | sed 1d >&2
    exit 2
}

device=cuda:0 scale=full only="" dir="" report=device-check.json
while [ $# -gt 0 ]; do
    case $1 in
        --device | --only | --dir | --report) [ $# -ge 2 ] || usage ;;&
        --device) device=$2 && shift ;;
        --only) only=$2 && shift ;;
        --dir) dir=$2 && shift ;;
        --report) report=$2 && shift ;;
        --quick | --tiny) scale=${1#--} ;;
        *) usage ;;
    esac
    shift
done
case $report in /*) ;; *) report=$PWD/$report ;; esac
cd "$(dirname "$0")/.."

free_kb() { df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }'; }
if [ -z "$dir" ]; then
    dir=${TMPDIR:-/tmp}
    if [ -d /dev/shm ] && (($(free_kb /dev/shm) > 48000000)); then dir=/dev/shm; fi
fi

program=${DEVICE_CHECK:-}
if [ -z "$program" ] && [ -x tools/device-check ]; then program=tools/device-check; fi
if [ -z "$program" ]; then
    if ! command -v cargo >/dev/null; then
        echo "no program: set DEVICE_CHECK, put one at tools/device-check, or install cargo" >&2
        exit 2
    fi
    cargo build --quiet --release --locked -p conformance --bin device-check
    program=${CARGO_TARGET_DIR:-target}/release/device-check
fi

# What is to be escaped in JSON does not occur in names of cards and versions.
plain() { tr -d '"\\\n\r\t' | cut -c1-200; }
case $device in *:*) ;; *) device=$device:0 ;; esac
# smi FIELD: what the vendor's tools say about the card; empty where they are not.
smi() {
    case $device in
        cuda:*) nvidia-smi --query-gpu="$1" --format=csv,noheader -i "${device##*:}" 2>/dev/null | plain || true ;;
        rocm:*) case $1 in
            name) rocminfo 2>/dev/null | sed -n 's/^ *Marketing Name: *//p' | grep -v CPU | sort -u | plain || true ;;
            driver_version) cat /sys/module/amdgpu/version /opt/rocm/.info/version 2>/dev/null | plain || true ;;
        esac ;;
        ascend:*) case $1 in
            name) "$program" all devices 2>/dev/null | sed -n "s/^$device: //p" | plain || true ;;
            driver_version)
                cat /usr/local/Ascend/driver/version.info "${ASCEND_HOME_PATH:-/nowhere}"/version.cfg 2>/dev/null |
                    plain || true
                ;;
        esac ;;
    esac
}

log=$(mktemp)
results=$(mktemp)
trap 'rm -f "$log" "$results"' EXIT
passed=0 failed=0 not_run=0

wanted() { [ -z "$only" ] || [[ ,$only, == *,$1,* ]]; }

# add NAME STATUS SECONDS RESULT: one line of the report; RESULT is JSON.
add() {
    [ ! -s "$results" ] || printf ',\n' >>"$results"
    printf '    {"name": "%s", "status": "%s", "seconds": %d, "result": %s}' "$1" "$2" "$3" "$4" >>"$results"
}

not_run() {
    printf '\nNOT RUN, %s: %s\n' "$1" "$2"
    not_run=$((not_run + 1))
    add "$1" "not run" 0 "{\"reason\": \"$(plain <<<"$2")\"}"
}

# check NAME COMMAND…: runs it; its last line is its result. With optional=1, what cannot be used was not run.
check() {
    local name=$1 begun=$SECONDS status=0 result
    shift
    printf '\n==> %s\n' "$name"
    "$@" </dev/null >"$log" 2>&1 || status=$?
    result=$(tail -n 1 "$log")
    case $result in '{'*'}') ;; *) result="{\"last_line\": \"$(plain <<<"$result")\"}" ;; esac
    sed '$d' "$log"
    case $status,${optional:-0} in
        0,*) passed=$((passed + 1)) && add "$name" passed $((SECONDS - begun)) "$result" ;;
        4,1) not_run "$name" "$(sed -n 's/.*"error":"\([^"]*\)".*/\1/p' <<<"$result")" ;;
        *)
            printf '%s\n' "$result"
            failed=$((failed + 1)) && add "$name" "failed with status $status" $((SECONDS - begun)) "$result"
            ;;
    esac
    printf '<== %s: status %d, %d s\n' "$name" "$status" $((SECONDS - begun))
}

# run NAME WORD…: a check of the program, if it is wanted.
run() {
    local name=$1
    shift
    if wanted "${name%% *}"; then check "$name" "$program" "$device" "$@"; fi
}

# The smallest case of each kind of kernel, under each tool: a sanitizer is slow.
sanitizer() {
    local found tool case
    case $device in cuda:*) ;; *)
        not_run sanitizer "there is no such tool for this vendor's device code"
        return
    ;; esac
    found=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1 || true)
    if [ -z "$found" ]; then
        not_run sanitizer "compute-sanitizer is not installed"
        return
    fi
    for tool in memcheck racecheck initcheck synccheck; do
        for case in linear/fp8/160x256/rows ffn/fp8 moe_gate/bf16 moe_experts/fp8 mla/fp8/batch rms_norm argmax; do
            check "sanitizer $tool $case" "$found" --tool "$tool" --error-exitcode 9 --print-limit 5 \
                "$program" "$device" ops "$case"
        done
    done
}

baseline() {
    if ! python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        not_run baseline "no Python with torch that sees a GPU"
        return
    fi
    check baseline python3 tools/peers/torch_gemm.py --device "${device##*:}"
}

# What nobody knows before it has run on an NPU, each by the smallest cases that show it (docs/hardware-status.md, "ascend").
points() {
    local number name cases
    while IFS='|' read -r number name cases; do
        for case in $cases; do check "point $number $name, $case" "$program" "$device" ops "$case"; done
    done <<POINTS
1|attention over the paged cache|mla/bf16/batch
2|INT8 products, a row of zeros|linear/int8/160x256
3|grouped products|moe_experts/bf16
4|fused INT8 experts, packed on the host|moe_experts/int8
5|choice of experts|moe_gate/bf16
6|f32 results, strided views|rms_norm argmax
POINTS
}

# An NPU has other checks.
npu() {
    local check
    if wanted points; then points; fi
    if [ "$scale" = tiny ]; then
        for case in linear/int8/160x256 mla/bf16/batch moe_experts/int8; do run "ops $case" ops "$case"; done
        if wanted goldens; then not_run goldens "left out by --tiny"; fi
    else
        run ops ops
        run goldens goldens
    fi
    run operators operators
    run steady steady
    [ "$scale" = tiny ] || run random-model random-model
    run generate generate
    for check in runtime capture sanitizer kernels cublaslt baseline bench; do
        if wanted "$check"; then not_run "$check" "there is no such check for this device"; fi
    done
}

sizes=()
[ "$scale" = full ] || sizes+=("--$scale")

gpu() {
    run runtime runtime
    if [ "$scale" = tiny ]; then
        for case in linear/fp8/160x256 mla/bf16/padded moe_experts/fp8; do run "ops $case" ops "$case"; done
        if wanted goldens; then not_run goldens "left out by --tiny"; fi
    else
        run ops ops
        run goldens goldens
    fi
    run generate generate
    run capture capture
    if wanted sanitizer; then
        if [ "$scale" = tiny ]; then not_run sanitizer "left out by --tiny"; else sanitizer; fi
    fi
    # The same run of the machine for ours and the baseline, so that clocks and heat are shared.
    run kernels kernels "${sizes[@]}"
    # The library may be missing, and is for Hopper alone.
    case $device in
        cuda:*) optional=1 run cublaslt cublaslt "${sizes[@]}" ;;
        *) if wanted cublaslt; then not_run cublaslt "it is NVIDIA's"; fi ;;
    esac
    if wanted baseline; then baseline; fi
    run bench bench "${sizes[@]}" --dir "$dir"
}

if wanted devices; then check devices "$program" all devices; fi
case $device in
    ascend:*) npu ;;
    *) gpu ;;
esac

commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
cat >"$report" <<EOF
{
  "date": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
  "commit": "$commit",
  "scale": "$scale",
  "device": "$device",
  "card": "$(smi name)",
  "driver": "$(smi driver_version)",
  "memory": "$(smi memory.total)",
  "power_limit": "$(smi power.limit)",
  "passed": $passed,
  "failed": $failed,
  "not_run": $not_run,
  "checks": [
$(cat "$results")
  ]
}
EOF
printf '\n%d passed, %d failed, %d not run; report: %s\n' "$passed" "$failed" "$not_run" "$report"
[ "$failed" -eq 0 ]
