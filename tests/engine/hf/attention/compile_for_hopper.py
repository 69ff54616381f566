"""Compiles the kernels for a Hopper GPU, which takes none: `python -m tests.engine.hf.attention.compile_for_hopper`.

Prints each kernel's name, head size and shared memory in bytes.
"""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tetribench.engine.hf.attention.kernels import decode, prefill, store

HEAD_SIZES = (80, 128)
HOPPER = GPUTarget("cuda", 90, 32)
TABLE = "*i32"
ROWS = dict.fromkeys(("query", "keys", "values", "key_blocks", "value_blocks", "out"), "*fp16")
NUMBERS = {"scale": "fp32", "table_width": "i32", "first_chunk": "i32", "block_stride": "i32"}
TABLES = {"block_table": TABLE, "num_keys": TABLE, "row_starts": TABLE, "slots": "*i64"}
TYPES = ROWS | NUMBERS | TABLES | {"partial": "*fp32", "log_sums": "*fp32"}


def main() -> None:
    for head_size in HEAD_SIZES:
        head = {"HEAD_SIZE": head_size, "HEAD_PADDED": triton.next_power_of_2(head_size)}
        paged = head | {"BLOCK_SIZE": 16, "GROUP": 4}
        split = paged | {"NUM_SPLITS": 8, "GROUP_PADDED": 16, "TILE": decode._TILE}
        tiles = paged | {"TILE_ROWS": prefill._TILE_ROWS, "TILE_KEYS": prefill._TILE_KEYS}
        report(store._store, head, num_warps=1)
        report(decode._attend_to_split, split, num_warps=decode._NUM_WARPS, num_stages=decode._NUM_STAGES)
        report(decode._combine, head | {"NUM_SPLITS": 8}, num_warps=1)
        report(prefill._attend_causally, tiles, num_warps=prefill._NUM_WARPS, num_stages=prefill._NUM_STAGES)


def report(kernel: triton.JITFunction, constants: dict[str, int], **options: int) -> None:
    """Pointers and the pool's stride are multiples of 16, as they are when the engine calls."""
    names = kernel.arg_names
    source = ASTSource(
        fn=kernel,
        signature={name: TYPES.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={
            (index,): [["tt.divisibility", 16]]
            for index, name in enumerate(names)
            if name == "block_stride" or TYPES.get(name, "").startswith("*")
        },
    )
    compiled = triton.compile(source, target=HOPPER, options=options)
    print(kernel.__name__, constants["HEAD_SIZE"], compiled.metadata.shared)


if __name__ == "__main__":
    main()
