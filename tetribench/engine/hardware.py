"""What the cost model knows of a device. Every profile under `conf/hardware/` says where its numbers come from."""


class Hardware:
    """Constants of one instance's hardware (all its devices together) for one class of model.

    An iteration costs, in seconds: `overhead_s`, plus the weights and the KV that it reads over `bytes_per_s`, plus its
    floating-point operations over `flops_per_s`, plus `per_sequence_s` for each decoding sequence. `copy_bytes_per_s`
    is the speed of a KV copy where the link sets none, `host_bytes_per_s` that of a copy to or from host memory, for
    what is swapped. `bytes_per_value` is the size of a weight and of a KV value.
    `co_run_slowdown` is by how much an iteration and a prediction of response lengths slow each other down while both
    run; without it the profile knows nothing of predictors, and predictions take no time.
    `kv_memory_gib` is the KV memory of one instance where it is not simply what the weights leave.
    """

    def __init__(
        self,
        *,
        name: str,
        source: str,
        num_devices: int = 1,
        memory_bytes: float,
        overhead_s: float,
        bytes_per_s: float,
        flops_per_s: float,
        per_sequence_s: float = 0.0,
        copy_bytes_per_s: float,
        host_bytes_per_s: float,
        bytes_per_value: int = 2,
        kv_memory_gib: float | None = None,
        co_run_slowdown: float | None = None,
    ) -> None:
        positive = {
            "num_devices": num_devices,
            "memory_bytes": memory_bytes,
            "bytes_per_s": bytes_per_s,
            "flops_per_s": flops_per_s,
            "copy_bytes_per_s": copy_bytes_per_s,
            "host_bytes_per_s": host_bytes_per_s,
            "bytes_per_value": bytes_per_value,
        }
        for option, value in positive.items():
            if value <= 0:
                raise ValueError(f"hardware.{option}={value}: must be positive")
        for option, value in {"overhead_s": overhead_s, "per_sequence_s": per_sequence_s}.items():
            if value < 0:
                raise ValueError(f"hardware.{option}={value}: must not be negative")
        if co_run_slowdown is not None and co_run_slowdown < 1:
            raise ValueError(f"hardware.co_run_slowdown={co_run_slowdown}: must be at least 1, or null")
        self.name = name
        self.source = source
        self.num_devices = num_devices
        self.memory_bytes = memory_bytes
        self.overhead_s = overhead_s
        self.bytes_per_s = bytes_per_s
        self.flops_per_s = flops_per_s
        self.per_sequence_s = per_sequence_s
        self.copy_bytes_per_s = copy_bytes_per_s
        self.host_bytes_per_s = host_bytes_per_s
        self.bytes_per_value = bytes_per_value
        self.kv_memory_gib = kv_memory_gib
        self.co_run_slowdown = co_run_slowdown
