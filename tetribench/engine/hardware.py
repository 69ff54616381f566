"""What the cost model knows of a device. Every profile under `conf/hardware/` says where its numbers come from."""

LARGEST_NUM_DEVICES = 8
"""Devices that share one all-reduce as it was measured: those of one server."""


class Hardware:
    """Constants of one instance's hardware for one class of model; `CostModel` says how they make up an iteration.

    Time: `overhead_s` of an iteration and `per_iteration_s` from one to the next; `bytes_per_s` for weights and
    `kv_bytes_per_s` for keys and values (by default the same); `flops_per_s` and `attention_flops_per_s` of prompts (by
    default the same); `roofline_power`, `saturation_tokens`, `per_prompt_s` and `per_sequence_s`; and `batching_s`,
    which an iteration of a single token does without: it multiplies matrices by a vector, and pads nothing.

    Tensor parallelism: the constants are those of `constants_of` devices together, which share their work. An instance
    of another number, `num_devices`, has as many times their memory, bandwidths and rates, and pays for the two
    all-reduces of each layer: one of b bytes among n devices takes `all_reduce_s + 2 (n - 1) / n * b /
    all_reduce_bytes_per_s`. Where these two are not known, or the constants are of more than one device (then they
    hold the all-reduces of that many), `num_devices` cannot be another number.

    Sizes: `memory_bytes`; `bytes_per_value` of a weight and of a KV value; `kv_memory_gib` is the KV memory of one
    instance where it is not simply what the weights leave. `copy_bytes_per_s` is the speed of a KV copy where the link
    sets none, `host_bytes_per_s` that of a copy to or from host memory, for what is swapped.

    Beside the device: `message_s` from one process to another, and `copy_latency_s` a push of KV, whatever its size.

    `wake_s` is what an iteration takes more that finds its instance idle: its caches were used by others meanwhile.

    `beside_slowdown` is how many times as long an iteration takes while another instance of the same machine computes:
    cores share caches, memory and the processes that serve them. Without it, instances do not feel each other.

    `co_run_slowdown` is by how much an iteration and a prediction of response lengths slow each other down while both
    run; without it the profile knows nothing of predictors, and predictions take no time.

    `chunk_size` is the paper's ChunkSize, where it was measured: prompt tokens of an iteration from which on throughput
    hardly grows.

    `fitted_prefill_tokens`, `fitted_sequences` and `fitted_context_tokens` are the largest iteration that the constants
    were fitted on: its prompt tokens, its decoding sequences, and the tokens of context of any one of them.
    """

    def __init__(
        self,
        *,
        name: str,
        source: str,
        num_devices: int = 1,
        constants_of: int = 1,
        memory_bytes: float,
        overhead_s: float,
        bytes_per_s: float,
        kv_bytes_per_s: float | None = None,
        flops_per_s: float,
        attention_flops_per_s: float | None = None,
        roofline_power: float = 1.0,
        saturation_tokens: float = 0.0,
        per_iteration_s: float = 0.0,
        per_prompt_s: float = 0.0,
        per_sequence_s: float = 0.0,
        batching_s: float = 0.0,
        wake_s: float = 0.0,
        all_reduce_s: float | None = None,
        all_reduce_bytes_per_s: float | None = None,
        copy_bytes_per_s: float,
        host_bytes_per_s: float,
        message_s: float = 0.0,
        copy_latency_s: float = 0.0,
        bytes_per_value: int = 2,
        kv_memory_gib: float | None = None,
        beside_slowdown: float | None = None,
        co_run_slowdown: float | None = None,
        chunk_size: int | None = None,
        fitted_prefill_tokens: int | None = None,
        fitted_sequences: int | None = None,
        fitted_context_tokens: int | None = None,
    ) -> None:
        kv_bytes_per_s = bytes_per_s if kv_bytes_per_s is None else kv_bytes_per_s
        attention_flops_per_s = flops_per_s if attention_flops_per_s is None else attention_flops_per_s
        _check_positive(
            num_devices=num_devices,
            constants_of=constants_of,
            memory_bytes=memory_bytes,
            bytes_per_s=bytes_per_s,
            kv_bytes_per_s=kv_bytes_per_s,
            flops_per_s=flops_per_s,
            attention_flops_per_s=attention_flops_per_s,
            all_reduce_bytes_per_s=all_reduce_bytes_per_s,
            copy_bytes_per_s=copy_bytes_per_s,
            host_bytes_per_s=host_bytes_per_s,
            bytes_per_value=bytes_per_value,
            chunk_size=chunk_size,
            fitted_prefill_tokens=fitted_prefill_tokens,
            fitted_sequences=fitted_sequences,
            fitted_context_tokens=fitted_context_tokens,
        )
        _check_not_negative(
            overhead_s=overhead_s,
            saturation_tokens=saturation_tokens,
            per_iteration_s=per_iteration_s,
            per_prompt_s=per_prompt_s,
            per_sequence_s=per_sequence_s,
            batching_s=batching_s,
            wake_s=wake_s,
            all_reduce_s=all_reduce_s,
            message_s=message_s,
            copy_latency_s=copy_latency_s,
        )
        if roofline_power < 1:
            raise ValueError(f"hardware.roofline_power={roofline_power}: must be at least 1")
        for option, slowdown in {"beside_slowdown": beside_slowdown, "co_run_slowdown": co_run_slowdown}.items():
            if slowdown is not None and slowdown < 1:
                raise ValueError(f"hardware.{option}={slowdown}: must be at least 1, or null")
        knows_all_reduce = all_reduce_s is not None and all_reduce_bytes_per_s is not None and constants_of == 1
        if num_devices != constants_of and not (knows_all_reduce and num_devices <= LARGEST_NUM_DEVICES):
            legal = f"1 to {LARGEST_NUM_DEVICES}" if knows_all_reduce else f"{constants_of}, as measured"
            raise ValueError(f"hardware.num_devices={num_devices}: must be {legal} ({name})")
        share = num_devices / constants_of
        self.name = name if share == 1 else f"{num_devices} x {name}"
        self.source = source
        self.num_devices = num_devices
        self.memory_bytes = memory_bytes * share
        self.overhead_s = overhead_s
        self.bytes_per_s = bytes_per_s * share
        self.kv_bytes_per_s = kv_bytes_per_s * share
        self.flops_per_s = flops_per_s * share
        self.attention_flops_per_s = attention_flops_per_s * share
        self.roofline_power = roofline_power
        self.saturation_tokens = saturation_tokens
        self.per_iteration_s = per_iteration_s
        self.per_prompt_s = per_prompt_s
        self.per_sequence_s = per_sequence_s
        self.batching_s = batching_s
        self.wake_s = wake_s
        self.all_reduce_s = all_reduce_s if all_reduce_s is not None and share > 1 else 0.0
        self.all_reduce_s_per_byte = (
            2.0 * (num_devices - 1) / num_devices / all_reduce_bytes_per_s
            if all_reduce_bytes_per_s is not None and share > 1
            else 0.0
        )
        self.copy_bytes_per_s = copy_bytes_per_s * share
        self.host_bytes_per_s = host_bytes_per_s * share
        self.message_s = message_s
        self.copy_latency_s = copy_latency_s
        self.bytes_per_value = bytes_per_value
        self.kv_memory_gib = kv_memory_gib
        self.beside_slowdown = beside_slowdown
        self.co_run_slowdown = co_run_slowdown
        self.chunk_size = chunk_size
        largest = {
            "prefill_tokens": fitted_prefill_tokens,
            "sequences": fitted_sequences,
            "context_tokens": fitted_context_tokens,
        }
        self.fitted = {size: number for size, number in largest.items() if number is not None}


def _check_positive(**options: float | None) -> None:
    for option, value in options.items():
        if value is not None and value <= 0:
            raise ValueError(f"hardware.{option}={value}: must be positive")


def _check_not_negative(**options: float | None) -> None:
    for option, value in options.items():
        if value is not None and value < 0:
            raise ValueError(f"hardware.{option}={value}: must not be negative")
