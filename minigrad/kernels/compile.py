"""Compiling and caching kernels.

Numba stores compiled functions beside their source file and compiles anew when that file changes. It does not see an
edit in another file that a kernel calls into, and would return the old answer. Here the stamp that a stored function
must match is a hash of all of minigrad's sources. Where the folder beside the sources can't be written, Numba's
user-wide folder serves, and if that can't be written either, kernels are compiled anew in each process.
"""
import contextlib
import functools
import glob
import hashlib
import logging
import time
from pathlib import Path

from numba.core import caching, event

from minigrad.runtime import jit_disabled

log = logging.getLogger("minigrad")

STALE = 3600.0  # seconds after which a file that no index names is removed: no process is about to name it


@functools.cache
def sources_hash() -> str:
    """Return the SHA-256 over the names and contents of minigrad's source files."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class StampedBySources:
    """A mixin for Numba's cache locators: a stored function is stamped by all of minigrad's sources and by its own
    file, which may lie elsewhere."""

    def get_source_stamp(self) -> tuple:
        return sources_hash(), super().get_source_stamp()  # type: ignore[misc]


LOCATORS: list[type] = [type(base.__name__, (StampedBySources, base), {})
                        for base in caching.CompileResultCacheImpl._locator_classes]


class StampedCacheImpl(caching.CompileResultCacheImpl):
    _locator_classes = LOCATORS  # type: ignore[assignment]


class FilesByKey(caching.IndexDataCacheFile):
    """The files of one function's signatures, named by what they hold.

    Numba numbers them: two processes that compile two signatures at once would both write number 1, and the index might
    then give the one's code for the other's arguments. Here it may only forget one of them."""

    def save(self, key, data):
        overloads = self._load_index()
        digest = hashlib.sha256(repr((self._source_stamp, key)).encode()).hexdigest()
        base = self._index_name.removesuffix(".nbi")
        overloads[key] = f"{base}.{digest[:16]}.nbc"
        self._save_data(overloads[key], data)
        self._save_index(overloads)
        for path in Path(self._cache_path).glob(f"{glob.escape(base)}.*.nbc"):  # of sources that are no more
            with contextlib.suppress(OSError):
                if path.name not in overloads.values() and time.time() - path.stat().st_mtime > STALE:
                    path.unlink()


class StampedCache(caching.FunctionCache):
    """Numba's cache of one function; what can't be read is compiled anew, what can't be written is not kept."""

    _impl_class = StampedCacheImpl

    def __init__(self, py_func):
        super().__init__(py_func)
        self._cache_file = FilesByKey(self._cache_path, self._impl.filename_base, self._cache_file._source_stamp)

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged file raises whatever unpickling it runs into
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except OSError as error:
            warn_once(error)


_warned = False


def warn_once(error: Exception) -> None:
    """Log that kernels are not kept, the first time only."""
    global _warned
    if not _warned:
        log.warning("compiled kernels are not kept: %s; set NUMBA_CACHE_DIR to a folder that can be written", error)
    _warned = True


def cached(dispatcher):
    """Give a Numba dispatcher the cache of this module, and return it (under NUMBA_DISABLE_JIT: a plain function)."""
    if jit_disabled():
        return dispatcher
    try:
        dispatcher._cache = StampedCache(dispatcher.py_func)
    except (RuntimeError, OSError) as error:  # no folder can be written
        warn_once(error)
    return dispatcher


class SayCompiling(event.Listener):
    """Log one line for each kernel that is compiled, as opposed to loaded from the cache."""

    def on_start(self, started: event.Event) -> None:
        """Name what is being compiled, if it is one of ours."""
        dispatcher = started.data["dispatcher"]
        if isinstance(dispatcher._cache, StampedCache):
            log.info("compiling %s", dispatcher.py_func.__qualname__.lstrip("_"))

    def on_end(self, ended: event.Event) -> None:
        pass


event.register("numba:compile", SayCompiling())
