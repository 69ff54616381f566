"""An engine that only waits: it sleeps for the time that the cost model predicts."""

from collections.abc import Callable
from copy import copy
from itertools import accumulate
from math import inf

from tetribench.core.clock import Clock, VirtualClock
from tetribench.core.seeds import generator
from tetribench.engine.base import Batch, EngineInfo, KVPool, OnLayer, forever
from tetribench.engine.cost_model import CostModel
from tetribench.engine.foreseen import Foreseen
from tetribench.engine.hardware import Hardware
from tetribench.engine.host_memory import check_host_memory, host_blocks
from tetribench.engine.model import OPT_125M, Model
from tetribench.engine.noise import Noise
from tetribench.engine.shared_device import SharedDevice
from tetribench.engine.sharing import Sharing

MAX_FORESEEN = 64
"""Iterations looked ahead at a time: most runs of a busy instance are shorter, and what is cut off was for nothing."""

IDLE_AFTER_S = 0.005
"""So long after an iteration its instance counts as idle, where that costs something."""


class CostModelEngine:
    """Sleeps for the predicted time and yields token 0 for every sequence that has one due.

    Swaps come before the pass and nothing hides them.
    """

    pool: KVPool | None = None

    def __init__(
        self,
        cost: CostModel,
        info: EngineInfo,
        clock: Clock,
        device: SharedDevice,
        predictor_cost: CostModel | None,
        host_bytes_per_s: float,
        noise: Noise | None = None,
        wake_s: float = 0.0,
    ) -> None:
        self.info = info
        self._clock = clock
        self.device = device
        self.predictor_cost = predictor_cost
        """Of a length predictor on the same device; None where the hardware's profile knows nothing of one."""
        self._host_bytes_per_s = host_bytes_per_s
        self._cost = cost
        self._noise = noise
        self._wake_s = wake_s
        self._num_iterations, self._ended_s = 0, -inf
        self._foreseen: Foreseen | None = None
        """The iterations that came last, where they were looked ahead at; they may still be cut short."""

    async def run(self, batch: Batch, on_layer: OnLayer | None = None) -> dict[int, int]:
        """Layers end at equal fractions of the pass, which follows the swaps."""
        swap_s = batch.num_swapped_blocks * self.info.block_bytes / self._host_bytes_per_s
        self._settle()
        pass_s = self._waking_seconds() + self._pass_seconds(batch) * self._noise_of(self._num_iterations)
        if swap_s:
            await self._clock.sleep(swap_s)
        if on_layer is None:
            await self.device.run(pass_s)
        else:
            for layer in range(self.info.num_layers):
                await self.device.run(pass_s / self.info.num_layers)
                on_layer(layer)
        self._num_iterations, self._ended_s = self._num_iterations + 1, self._clock.now()
        tokens = {chunk.sequence.request.id: 0 for chunk in batch.prefill if chunk.yields_token}
        tokens.update([(sequence.request.id, 0) for sequence in batch.decode])
        return tokens

    def _settle(self) -> None:
        """Count the iterations that were looked ahead at, now that none of them can be cut off any more."""
        if self._foreseen is not None:
            self._num_iterations += len(self._foreseen.ends_s)
            self._ended_s, self._foreseen = self._foreseen.ends_s[-1], None

    def _noise_of(self, iteration: int) -> float:
        return 1.0 if self._noise is None else self._noise.factor(iteration)

    def _waking_seconds(self) -> float:
        """What the iteration that begins now takes more because nothing ran before it."""
        return self._wake_s if self._clock.now() - self._ended_s > IDLE_AFTER_S else 0.0

    def _pass_seconds(self, batch: Batch) -> float:
        if batch.prefill:
            return self._cost.seconds(batch)
        if batch.decode:
            return self._cost.decode_seconds(len(batch.decode), _num_context_tokens(batch))
        return 0.0

    def foresee(self, batch: Batch, num_steady: Callable[[], int]) -> Foreseen | None:
        """In virtual time, and on a device that nothing else can use: every context grows by one token an iteration."""
        is_decode = batch.decode and not batch.prefill and not batch.num_swapped_blocks
        if not is_decode or not isinstance(self._clock, VirtualClock) or not self.device.is_undisturbed:
            return None
        num_iterations = min(num_steady(), MAX_FORESEEN)
        if num_iterations == 1:
            return None
        self._settle()
        seconds = self._cost.steady_seconds(len(batch.decode), _num_context_tokens(batch), num_iterations)
        if self._noise is not None:
            seconds = [each * self._noise_of(number) for number, each in enumerate(seconds, self._num_iterations)]
        seconds[0] += self._waking_seconds()
        ends_s = list(accumulate(seconds, initial=self._clock.now()))[1:]
        self._foreseen = Foreseen(self._clock, self.device.rank, ends_s)
        return self._foreseen

    async def watch(self) -> None:
        """It depends on nothing."""
        await forever()

    def close(self) -> None:
        """Nothing is held."""


def _num_context_tokens(batch: Batch) -> int:
    """With the token that each decode is about to compute."""
    return sum([one.num_computed for one in batch.decode]) + len(batch.decode)


class CostModelFactory:
    """Engine option `cost_model`: `model` on `hardware`.

    KV memory is `kv_memory_gib`; by default what the hardware's profile says, else all that the weights leave of
    `memory_share` of the device (vLLM's rule). An instance that swaps has `host_memory_gib` of host memory beside it.

    Times are what the model says, each multiplied with noise of mean 1 and the standard deviations `step_noise`, anew
    for every iteration, and `run_noise`, once for every instance; what is drawn depends on `seed`.
    """

    def __init__(
        self,
        *,
        model: Model,
        hardware: Hardware,
        kv_memory_gib: float | None = None,
        memory_share: float = 0.9,
        host_memory_gib: float = 4.0,
        block_size: int = 16,
        step_noise: float = 0.0,
        run_noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        for option, noise in {"step_noise": step_noise, "run_noise": run_noise}.items():
            if not 0.0 <= noise <= 1.0:
                raise ValueError(f"engine.{option}={noise}: must be between 0 and 1")
        if block_size < 1:
            raise ValueError(f"engine.block_size={block_size}: must be at least 1")
        if kv_memory_gib is not None and kv_memory_gib <= 0:
            raise ValueError(f"engine.kv_memory_gib={kv_memory_gib}: must be positive, or null for all that is left")
        check_host_memory(host_memory_gib)
        if not 0.0 < memory_share <= 1.0:
            raise ValueError(f"engine.memory_share={memory_share}: must be above 0 and at most 1")
        self.model = model
        self.hardware = hardware
        self.kv_memory_gib = hardware.kv_memory_gib if kv_memory_gib is None else kv_memory_gib
        self.memory_share = memory_share
        self.host_memory_gib = host_memory_gib
        self.num_host_blocks = 0
        self.num_sharing = 1
        """Instances on the device. The weights are there once, whatever their number."""
        self.block_size = block_size
        self.step_noise = step_noise
        self.run_noise = run_noise
        self._noise_names: tuple[str | int, ...] = (seed,)

    @property
    def is_noisy(self) -> bool:
        return bool(self.step_noise or self.run_noise)

    @property
    def has_parts(self) -> bool:
        return False

    def in_slot(self, slot: str) -> "CostModelFactory":
        other = copy(self)
        other._noise_names = (*self._noise_names, slot)
        return other

    def info(self) -> EngineInfo:
        """Sizes that follow from the shape. Raises ValueError when weights and KV do not fit the device."""
        shape, hardware = self.model.shape(), self.hardware
        block_bytes = self._block_bytes()
        weight_bytes = shape.num_parameters * hardware.bytes_per_value
        left_bytes = hardware.memory_bytes * self.memory_share - weight_bytes
        if left_bytes < block_bytes:
            raise ValueError(
                f"hardware={hardware.name}: of its {hardware.memory_bytes / 2**30:.1f} GiB of memory a share of "
                f"{self.memory_share:.0%} (engine.memory_share) holds no KV of {self.model.name} beside weights of "
                f"{weight_bytes / 2**30:.1f} GiB"
            )
        kv_bytes = left_bytes if self.kv_memory_gib is None else self.kv_memory_gib * 2**30
        if kv_bytes > left_bytes or kv_bytes < block_bytes:
            raise ValueError(
                f"engine.kv_memory_gib={self.kv_memory_gib}: {hardware.name} has {left_bytes / 2**30:.1f} GiB beside "
                f"the weights of {self.model.name}; must be at most that and at least one block "
                f"({block_bytes / 2**30:.3f} GiB)"
            )
        return EngineInfo(
            num_blocks=int(kv_bytes // block_bytes) // self.num_sharing,
            num_host_blocks=self.num_host_blocks,
            block_size=self.block_size,
            max_context_tokens=shape.max_context_tokens,
            block_bytes=block_bytes,
            num_layers=shape.num_layers,
            device=hardware.name,
            dtype=f"{8 * hardware.bytes_per_value} bit",
            num_parameters=shape.num_parameters,
            num_devices=hardware.num_devices,
            num_sharing=self.num_sharing,
            attention="cost model",
            copy_bytes_per_s=hardware.copy_bytes_per_s,
            copy_latency_s=hardware.copy_latency_s,
            fitted=hardware.fitted,
        )

    def _block_bytes(self) -> int:
        return self.block_size * self.model.shape().kv_bytes_per_token(self.hardware.bytes_per_value)

    def with_host_memory(self) -> "CostModelFactory":
        swapping = copy(self)
        swapping.num_host_blocks = host_blocks(self.host_memory_gib, self._block_bytes())
        return swapping

    @property
    def runs_on_a_core(self) -> bool:
        return True

    def shared(self, num_instances: int, sharing: Sharing, first_share: float = 0.5) -> "CostModelFactory":
        if sharing is not Sharing.time_slicing:
            raise ValueError(
                f"system.tetri.sharing={sharing.value}: a cost model takes turns; must be none or time_slicing with "
                f"engine=cost_model"
            )
        part = copy(self)
        part.num_sharing = num_instances
        return part

    def in_part(self, part: int) -> "CostModelFactory":
        return self

    def sized(self, num_devices: int, num_sharing: int = 1) -> "CostModelFactory":
        self.info()
        return self

    def num_blocks(self) -> int:
        return self.info().num_blocks

    def build(self, clock: Clock, device: int | None) -> CostModelEngine:
        slowdown = self.hardware.co_run_slowdown
        rank = 1 if device is None else 1 + device
        own = SharedDevice(clock, slowdown or 1.0, rank, self.hardware.beside_slowdown or 1.0)
        predictor_cost = None if slowdown is None else CostModel(OPT_125M, self.hardware)
        cost = CostModel(self.model.shape(), self.hardware)
        seed, *names = self._noise_names
        draw = generator(int(seed), "noise", *names, 0 if device is None else device)
        noise = Noise(self.step_noise, self.run_noise, draw) if self.is_noisy else None
        return CostModelEngine(
            cost,
            self.info(),
            clock,
            own,
            predictor_cost,
            self.hardware.host_bytes_per_s,
            noise,
            self.hardware.wake_s,
        )
