"""What is launched of every GPU kernel in the tiles that may be chosen, to compile it without a device."""

import itertools
from typing import Any

import triton
from triton.experimental.gluon import language as gl

from rapid_kernels.gpu import (
    attention,
    attention_hopper,
    choice,
    decode_plan,
    elementwise,
    matmul,
    matmul_hopper,
    prefill,
    prefill_hopper,
    probe,
    prompt_plan,
    read,
)
from rapid_kernels.gpu.decode_call import HOPPER_TOKENS, DecodeTile
from rapid_kernels.gpu.heads import padded_sizes

Job = tuple[Any, dict[str, str], dict[str, Any], dict[str, Any]]
"""Kernel, types of its arguments, constants, options."""


def matmul_jobs(tile: matmul.Tile, gated: bool) -> list[Job]:
    halves = 1 + gated
    constants = {"K": 4096, "BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "BLOCK_K": tile.block_k}
    constants |= {"STAGES": tile.stages, "BULK": tile.bulk, "GATED": gated, "CHAINED": tile.bulk}
    arguments = {
        "x": f"tensordesc<bf16[{tile.block_m}, {tile.block_k}]>" if tile.bulk else "*bf16",
        "weight": f"tensordesc<bf16[{halves}, {tile.block_n // halves}, {tile.block_k}]>" if tile.bulk else "*bf16",
    }
    arguments |= {"weight_at": "*bf16", "y": "*bf16", "parts": "*fp32", "m": "i32", "N": "i32", "x_stride": "i32"}
    finish = {"K_STEPS": 4096 // tile.block_k, "BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n}
    finish |= {"ROWS": matmul.FINISHED_ROWS, "GATED": gated, "CHAINED": tile.bulk}
    finish_arguments = {"y": "*bf16", "parts": "*fp32", "m": "i32", "N": "i32", "programs": "i32"}
    return [
        (
            matmul.skinny_matmul_kernel,
            arguments,
            constants | {"PREFETCH": tile.prefetched},
            {"num_warps": tile.warps},
        ),
        (matmul.finish_matmul_kernel, finish_arguments, finish, {"num_warps": 4}),
    ]


def slim_matmul_jobs(tile: matmul_hopper.SlimTile, gated: bool) -> list[Job]:
    jobs: list[Job] = []
    for rows in (8, 16, 32):
        blocks = [rows, tile.block_k], [tile.block_n // (1 + gated), tile.block_k]
        layouts = [gl.NVMMASharedLayout.get_default_for(block, gl.bfloat16) for block in blocks]
        arguments = {"x": f"tensordesc<bf16{blocks[0]},{layouts[0]!r}>"}
        arguments |= {"weight": f"tensordesc<bf16{blocks[1]},{layouts[1]!r}>", "y": "*bf16", "parts": "*fp32"}
        constants = {"K": 4096, "ROWS": rows, "STAGES": tile.stages(rows), "PARTS": 1 + gated, "CHAINED": True}
        registers = {"maxnreg": 128} if tile.memory <= matmul_hopper.SHARING_BYTES else {}
        warps = {"num_warps": 4}
        arguments |= {"m": "i32", "N": "i32"}
        jobs.append((matmul_hopper.slim_matmul_kernel, arguments, constants | warps, warps | registers))
    return jobs


def attention_jobs(tile: DecodeTile, kv_heads: int, group: int, dim: int) -> list[Job]:
    queries, padded = max(16, triton.next_power_of_2(group)), max(16, triton.next_power_of_2(dim))
    tokens = decode_plan.make_plan(64, dim, 2, 1, 1, "cpu").tile_tokens
    shape = {"KV_HEADS": kv_heads, "GROUP": group, "DIM": dim, "QUERIES": queries, "PADDED": padded}
    own = {"TILE": tokens, "STAGES": tile.stages, "BULK": tile.bulk, "EXACT": False}
    arguments = {
        "q": f"tensordesc<bf16[1, 1, {queries}, {padded}]>" if tile.bulk else "*bf16",
        "kv": f"tensordesc<bf16[1, {tokens}, {padded}]>" if tile.bulk else "*bf16",
    }
    arguments |= {"out": "*bf16", "tiles": "*i64", "first": "*i32", "parts": "*fp32"}
    arguments |= {"rows": "i32", "q_stride": "i32", "scale": "fp32"}
    merge = {"out": "*bf16", "tiles": "*i64", "first": "*i32", "parts": "*fp32", "rows": "i32"}
    at_once = {"AT_ONCE": attention.MERGED_QUERIES, "PIECES": attention.MERGED_PIECES}
    chained = {"CHAINED": tile.bulk}
    roles = [chained | {"LEADS": False}] + ([{"CHAINED": False, "LEADS": True}] if tile.bulk else [])
    return [
        *(
            (attention.decode_attention_kernel, arguments, shape | own | role, {"num_warps": tile.warps})
            for role in roles
        ),
        (
            attention.merge_kernel,
            merge,
            shape | at_once | chained | {"PLANNED": True},
            {"num_warps": attention.MERGING_WARPS},
        ),
    ]


def hopper_attention_jobs(tile: DecodeTile, kv_heads: int, group: int, dim: int) -> list[Job]:
    heads, padded = padded_sizes(group, dim)
    shape = {"KV_HEADS": kv_heads, "GROUP": group, "DIM": dim, "QUERIES": max(8, heads), "PADDED": padded}
    block = [HOPPER_TOKENS, padded]
    jobs: list[Job] = []
    for name, dtype in (("bf16", gl.bfloat16), ("fp16", gl.float16)):
        layout = gl.NVMMASharedLayout.get_default_for(block, dtype)
        arguments = {"q": f"*{name}", "kv": f"tensordesc<{name}{block},{layout!r}>", "out": f"*{name}"}
        arguments |= {"tiles": "*i64", "first": "*i32", "parts": "*fp32"}
        arguments |= {"rows": "i32", "q_stride": "i32", "scale": "fp32"}
        own = {"STAGES": tile.stages, "EXACT": name == "fp16", "num_warps": 4}
        for role in ({"CHAINED": True, "LEADS": False}, {"CHAINED": False, "LEADS": True}):
            kernel = attention_hopper.hopper_decode_attention_kernel
            jobs.append((kernel, arguments, shape | own | role, {"num_warps": 4}))
    return jobs


def other_jobs(chained: bool) -> list[Job]:
    plan = {"kv_lens": "*i32", "block_tables": "*i32", "tiles": "*i64", "first": "*i32"}
    plan |= {"rows": "i32", "table_stride": "i32", "window": "i32"}
    plan_constants = {"BLOCK_TOKENS": 64, "TILE": 64, "ROWS": 256, "CHUNK": 128}
    prompts = {"query_start": "*i32", "kv_lens": "*i32", "tiles": "*i32", "first_row": "i32", "rows": "i32"}
    prompts |= {"wave": "i32"}
    prompt_constants = {"TOKENS": 16, "UNIT": 64, "BLOCK_TOKENS": 64, "LEAST_UNITS": 4, "ROWS": prompt_plan.ROWS}
    prompt_constants |= {"WAVES": 2, "START": 4, "MERGE": 10, "A_UNIT": 5, "DECODE": 32}
    norm = {"x": "*bf16", "parts": "*fp32", "residual": "*bf16", "weight": "*bf16", "out": "*bf16"}
    norm |= {"programs": "i32", "eps": "fp32"}
    rope = {
        "qkv": "*bf16",
        "parts": "*fp32",
        "programs": "i32",
        "cos": "*fp32",
        "sin": "*fp32",
        "positions": "*i64",
        "slots": "*i64",
        "kv": "*bf16",
    }
    rope |= {"q_weight": "*bf16", "k_weight": "*bf16", "eps": "fp32"}
    norm_constants = {"WIDTH": 4096, "PADDED": 4096, "ADD": True}
    rope_constants = {"HEADS": 32, "KV_HEADS": 8, "DIM": 128, "PADDED": 64, "GROUP": 8}
    whole = {"K_STEPS": 1, "BLOCK_M": 1, "MOST": 1}
    cut = {"K_STEPS": 32, "BLOCK_M": 64, "MOST": 5}
    silu = {"gate_up": "*bf16", "out": "*bf16"}
    best = {"logits": "*bf16", "out": "*fp32", "bests": "*fp32", "firsts": "*i32"}
    chosen = {"bests": "*fp32", "firsts": "*i32", "chosen": "*i32", "tokens": "*i32", "target": "*i64"}
    choice_constants = {"VOCAB": 128256, "PIECES": 63, "PADDED": 64}
    jobs: list[Job] = [
        (decode_plan.plan_decode_kernel, plan, plan_constants, {}),
        (prompt_plan.plan_prompts_kernel, prompts, prompt_constants, {"num_warps": 1}),
        *(
            (elementwise.add_rms_norm_kernel, norm, norm_constants | parts | {"TILE": tile}, {"num_warps": 8})
            for parts, tile in ((whole, 4096), (cut, 128))
        ),
        *(
            (
                elementwise.rope_and_cache_kernel,
                rope,
                rope_constants | parts | {"BLOCK_N": block, "NORM": norm},
                {"num_warps": 4},
            )
            for parts, block, norm in ((whole, 1, False), (whole, 1, True), (cut, 128, False), (cut, 128, True))
        ),
        (elementwise.silu_mul_kernel, silu, {"WIDTH": 14336, "BLOCK": 2048}, {"num_warps": 4}),
        *(
            (choice.best_of_piece_kernel, best, {"VOCAB": vocab, "PIECE": choice.PIECE}, {"num_warps": 4})
            for vocab in (128256, 32001)
        ),
        (choice.choose_kernel, chosen, choice_constants, {"num_warps": 1}),
    ]
    return [
        (kernel, types, constants | ({"CHAINED": chained} if "CHAINED" in kernel.arg_names else {}), options)
        for kernel, types, constants, options in jobs
    ]


PROMPT_SHAPES = ((8, 4, 128, 64), (1, 16, 256, 64), (4, 2, 8, 16))
"""KV heads, group, head size, tokens of a block: an 8B model's, the largest, the smallest."""


def prompt_shape(queries: int, kv_heads: int, group: int, dim: int) -> dict[str, Any]:
    heads, padded = padded_sizes(group, dim)
    shape = {"KV_HEADS": kv_heads, "GROUP": group, "DIM": dim, "HEADS": heads, "PADDED": padded}
    return shape | {"TOKENS": queries // heads}


def prompt_constants(keys: int, queries: int, kv_heads: int, group: int, dim: int, block: int) -> dict[str, Any]:
    return prompt_shape(queries, kv_heads, group, dim) | {"KEYS": min(keys, block), "BLOCK_TOKENS": block}


def prompt_arguments(kv: str) -> dict[str, str]:
    arguments = {"q": "*bf16", "kv": kv, "out": "*bf16", "block_tables": "*i32", "tiles": "*i32", "parts": "*fp32"}
    return arguments | {"table_stride": "i32", "q_stride": "i32", "scale": "fp32"}


def prompt_jobs(tile: prefill.PromptTile) -> list[Job]:
    arguments = prompt_arguments("*bf16") | {"window": "i32"}
    own = {"STAGES": tile.stages}
    return [
        (
            prefill.prompt_attention_kernel,
            arguments,
            prompt_constants(tile.keys, tile.queries, *shape) | own | {"WINDOW": window, "CUT": cut},
            {"num_warps": tile.warps},
        )
        for shape, window, cut in (
            (PROMPT_SHAPES[0], False, False),
            (PROMPT_SHAPES[0], False, True),
            (PROMPT_SHAPES[0], True, False),
            (PROMPT_SHAPES[1], False, False),
            (PROMPT_SHAPES[1], False, True),
        )
    ]


def merge_jobs(queries: int) -> list[Job]:
    arguments = {"out": "*bf16", "tiles": "*i32", "parts": "*fp32"}
    return [
        (
            prompt_plan.merge_pieces_kernel,
            arguments,
            prompt_shape(queries, *shape[:3]) | {"PROGRAMS": prompt_plan.MERGING},
            {"num_warps": 4},
        )
        for shape in PROMPT_SHAPES
    ]


def hopper_prompt_jobs(tile: prefill_hopper.HopperTile) -> list[Job]:
    jobs: list[Job] = []
    for shape, cut, follows in itertools.product(PROMPT_SHAPES, (False, True), (False, True)):
        constants = prompt_constants(tile.keys, tile.queries, *shape)
        block = [constants["KEYS"], constants["PADDED"]]
        layout = gl.NVMMASharedLayout.get_default_for(block, gl.bfloat16)
        arguments = prompt_arguments(f"tensordesc<bf16{block},{layout!r}>")
        warps = {"num_warps": tile.queries // 16}
        own = {"STAGES": tile.stages, "CUT": cut, "FOLLOWS": follows} | warps
        jobs.append((prefill_hopper.hopper_prompt_attention_kernel, arguments, constants | own, warps))
    return jobs


def read_jobs() -> list[Job]:
    arguments = {"data": "*i32", "out": "*i32", "blocks": "i32"}
    return [
        (read.read_kernel, arguments, {"BLOCK": block, "STAGES": stages}, {"num_warps": warps})
        for block, stages, warps, _ in read.READ_TILES
    ]


def probe_jobs() -> list[Job]:
    """%smid is NVIDIA's; the daemon has a probe of its own for AMD's chips."""
    return [(probe.unit_id_kernel, {"out": "*i32"}, {}, {"num_warps": 1})]
