#!/usr/bin/env python3
"""Times products of PyTorch at the shapes of `device-check kernels`, on the same GPU: what a library makes of them.

    pip install torch
    tools/peers/torch_gemm.py [--device 0]

For each shape a bf16 matmul, and torch._scaled_mm in FP8 with a scale per row and column where the device has it; on Hopper
also with a scale per 128 inputs of a row and per block of 128 x 128 weights, as DeepSeek's checkpoints have them: that is
cuBLASLt's block scaling (CUDA 12.9), and what it refuses is told as not run. Operands are random and are taken in turns from
copies that together exceed the card's cache. Each measurement is a CUDA graph of many products, timed with events. The last line is one JSON object.
"""
import argparse
import json
import statistics

import torch

LINEARS = [
    ("v3 q_a + kv_a", 2112, 7168),
    ("v3 q_b", 24576, 1536),
    ("v3 o", 7168, 16384),
    ("moonlight q", 3072, 2048),
    ("moonlight kv_a", 576, 2048),
    ("moonlight o", 2048, 2048),
    ("moonlight head", 163840, 2048),
]
ROWS = [1, 16, 32, 128, 4096]
COPIES_BYTES = 400e6
MAX_COPIES = 32
MEASUREMENTS = 5
BLOCK = 128


def milliseconds(product, copies: int) -> float:
    """Median time of product(copy), over copies in turns."""
    runs = max(copies, 16)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for run in range(runs):
            product(run % copies)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for run in range(runs):
            product(run % copies)
    graph.replay()
    times = []
    for _ in range(MEASUREMENTS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / runs)
    return statistics.median(times)


def scales(kind: str, rows: int, out: int, inp: int):
    """Scales of the inputs and of the transposed weights, all 1, in the order that the library reads them in."""
    if kind == "fp8":
        return torch.ones(rows, 1, device="cuda"), torch.ones(1, out, device="cuda")
    groups = -(-inp // BLOCK)
    # Side by side in memory: the scales of a group for all rows; the scales of a column of blocks, their number rounded up.
    scale_x = torch.ones(groups, rows, device="cuda").t()
    scale_w = torch.ones(-(-out // BLOCK), -(-groups // 4) * 4, device="cuda").t()
    return scale_x, scale_w


def measure(kind: str, rows: int, out: int, inp: int) -> float:
    element_bytes = 2 if kind == "bf16" else 1
    copies = min(MAX_COPIES, max(1, round(COPIES_BYTES / (out * inp * element_bytes))))
    x = torch.randn(rows, inp, device="cuda", dtype=torch.bfloat16)
    weights = [torch.randn(out, inp, device="cuda", dtype=torch.bfloat16) / inp**0.5 for _ in range(copies)]
    if kind == "bf16":
        return milliseconds(lambda copy: torch.nn.functional.linear(x, weights[copy]), copies)
    architecture = getattr(torch.cuda.get_device_properties("cuda"), "gcnArchName", "")
    fp8 = torch.float8_e4m3fnuz if architecture.startswith("gfx942") else torch.float8_e4m3fn
    x8, weights8 = x.to(fp8), [weight.to(fp8).t() for weight in weights]
    scale_x, scale_w = scales(kind, rows, out, inp)

    def product(copy: int):
        return torch._scaled_mm(x8, weights8[copy], scale_a=scale_x, scale_b=scale_w, out_dtype=torch.bfloat16)

    return milliseconds(product, copies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=int, default=0)
    torch.cuda.set_device(parser.parse_args().device)
    kinds = ["bf16"]
    if torch.cuda.get_device_capability() >= (8, 9):
        kinds.append("fp8")
    if torch.version.cuda and torch.cuda.get_device_capability() == (9, 0):
        kinds.append("fp8 blocks")
    rows_of_table = []
    for name, out, inp in LINEARS:
        for kind in kinds:
            for rows in [rows for rows in ROWS if rows * out <= 1 << 27]:
                what = f"torch {kind} {name} {out}x{inp}"
                try:
                    ms = measure(kind, rows, out, inp)
                except (RuntimeError, ValueError) as error:
                    print(f"NOT RUN, {what}, {rows} rows: {str(error).splitlines()[0]}")
                    continue
                element_bytes = 2 if kind == "bf16" else 1
                weight_bytes = out * inp * element_bytes + rows * (inp * element_bytes + 2 * out)
                row = {
                    "what": what,
                    "tokens": rows,
                    "ms": ms,
                    "gb_s": weight_bytes / ms / 1e6,
                    "tflop_s": 2 * rows * out * inp / ms / 1e9,
                }
                rows_of_table.append(row)
                print(f"{what:<40} {rows:>5} {ms:>9.4f} ms {row['gb_s']:>8.1f} GB/s {row['tflop_s']:>8.2f} TFLOP/s")
    device = torch.cuda.get_device_name()
    print(json.dumps({"check": "baseline", "torch": torch.__version__, "device": device, "rows": rows_of_table}))


if __name__ == "__main__":
    main()
