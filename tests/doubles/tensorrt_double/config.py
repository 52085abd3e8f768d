"""What a build is told: profiles, flags, limits, timing cache."""

import json
from typing import Any, Dict, List, Optional, Tuple

from tests.doubles.tensorrt_double.library import Library, wants, wants_buffer, wants_integer
from tests.doubles.tensorrt_double.strict import StrictObject

Shape = Tuple[int, ...]


class IOptimizationProfile(StrictObject):
    """The least, best and greatest shape of every free input."""

    _library: Library

    def _start(self) -> None:
        self._shapes: Dict[str, Tuple[Shape, Shape, Shape]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        wants(input, str, "IOptimizationProfile.set_shape")
        low, best, high = (tuple(int(one) for one in shape) for shape in (min, opt, max))
        for label, shape in (("min", low), ("opt", best), ("max", high)):
            if len(shape) != len(low) or any(one < 0 for one in shape):
                raise RuntimeError(f"Shape provided for {label} is inconsistent with other shapes.")
        if any(a > b for a, b in zip(low, best)):
            raise RuntimeError("Shape provided for opt is inconsistent with other shapes.")
        if any(b > c for b, c in zip(best, high)):
            raise RuntimeError("Shape provided for max is inconsistent with other shapes.")
        self._shapes[input] = (low, best, high)

    def get_shape(self, input: str) -> List[Any]:
        return [self._library.dims(shape) for shape in self._shapes.get(input, ())]

    def __bool__(self) -> bool:
        return True


class ITimingCache(StrictObject):
    """What was timed. The double times nothing and writes down the layers' names."""

    _library: Library

    def _start(self, origin: List[Any], entries: List[str]) -> None:
        self._origin, self._entries = origin, set(entries)

    def serialize(self) -> Any:
        text = json.dumps({"double of a timing cache": self._origin, "entries": sorted(self._entries)})
        return self._library.classes["IHostMemory"](text.encode())

    def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
        other = wants(input_cache, self._library.classes["ITimingCache"], "ITimingCache.combine")
        if other._origin != self._origin and not ignore_mismatch:
            return False
        self._entries |= other._entries
        return True

    def reset(self) -> bool:
        self._entries.clear()
        return True


class IBuilderConfig(StrictObject):
    """Made by a builder."""

    _library: Library

    def _start(self, builder: Any) -> None:
        self._builder = builder
        self._profiles: List[Any] = []
        self._flags: set[int] = {int(self._library.classes["BuilderFlag"].__members__["TF32"])}
        self._pools: Dict[int, int] = {}
        self._workspace: Optional[int] = None
        self._cache: Optional[Any] = None
        self._verbosity: Optional[Any] = None
        self._level = 3
        self._iterations = 1
        self._stream = 0

    def _names(self) -> Tuple[str, ...]:
        """The flags that are set."""
        members = self._library.classes["BuilderFlag"].__members__
        return tuple(sorted(label for label, one in members.items() if int(one) in self._flags))

    def _flag(self, flag: Any, what: str) -> int:
        return int(wants(flag, self._library.classes["BuilderFlag"], f"IBuilderConfig.{what}"))

    def set_flag(self, flag: Any) -> None:
        self._flags.add(self._flag(flag, "set_flag"))

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(self._flag(flag, "clear_flag"))

    def get_flag(self, flag: Any) -> bool:
        return self._flag(flag, "get_flag") in self._flags

    @property
    def flags(self) -> int:
        return sum(1 << one for one in self._flags)

    @flags.setter
    def flags(self, value: int) -> None:
        self._flags = {bit for bit in range(64) if value >> bit & 1}

    def add_optimization_profile(self, profile: Any) -> int:
        one = wants(profile, self._library.classes["IOptimizationProfile"], "IBuilderConfig.add_optimization_profile")
        self._profiles.append(one)
        return len(self._profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    @property
    def max_workspace_size(self) -> int:
        return 1 << 30 if self._workspace is None else self._workspace

    @max_workspace_size.setter
    def max_workspace_size(self, value: int) -> None:
        self._workspace = wants_integer(value, "IBuilderConfig.max_workspace_size")

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        wants(pool, self._library.classes["MemoryPoolType"], "IBuilderConfig.set_memory_pool_limit")
        self._pools[int(pool)] = wants_integer(pool_size, "IBuilderConfig.set_memory_pool_limit")
        if int(pool) == 0:
            self._workspace = self._pools[0]

    def get_memory_pool_limit(self, pool: Any) -> int:
        wants(pool, self._library.classes["MemoryPoolType"], "IBuilderConfig.get_memory_pool_limit")
        return self._pools.get(int(pool), self._library.gpu.memory.capacity_bytes)

    def _origin(self) -> List[Any]:
        return [self._library.text, self._library.gpu.board.name]

    def create_timing_cache(self, serialized_timing_cache: Any) -> Any:
        data = wants_buffer(serialized_timing_cache, "IBuilderConfig.create_timing_cache")
        if not data:
            return self._library.make("ITimingCache", self._origin(), [])
        try:
            found = json.loads(data)
            return self._library.make("ITimingCache", found["double of a timing cache"], found["entries"])
        except (ValueError, KeyError, TypeError):
            self._library.error(self._builder._logger, "the serialised timing cache cannot be read")
            return None

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        one = wants(cache, self._library.classes["ITimingCache"], "IBuilderConfig.set_timing_cache")
        if one._origin != self._origin() and not ignore_mismatch:
            self._library.error(self._builder._logger, "the timing cache comes from another version or device")
            return False
        self._cache = one
        return True

    def get_timing_cache(self) -> Any:
        return self._cache

    @property
    def profiling_verbosity(self) -> Any:
        members = self._library.classes["ProfilingVerbosity"].__members__
        return self._verbosity or members["LAYER_NAMES_ONLY"]

    @profiling_verbosity.setter
    def profiling_verbosity(self, value: Any) -> None:
        self._verbosity = wants(value, self._library.classes["ProfilingVerbosity"], "profiling_verbosity")

    @property
    def builder_optimization_level(self) -> int:
        return self._level

    @builder_optimization_level.setter
    def builder_optimization_level(self, value: int) -> None:
        self._level = value

    @property
    def avg_timing_iterations(self) -> int:
        return self._iterations

    @avg_timing_iterations.setter
    def avg_timing_iterations(self, value: int) -> None:
        self._iterations = value

    @property
    def profile_stream(self) -> int:
        return self._stream

    @profile_stream.setter
    def profile_stream(self, value: int) -> None:
        self._stream = wants_integer(value, "IBuilderConfig.profile_stream")
