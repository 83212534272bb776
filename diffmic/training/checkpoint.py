"""Checkpoints: the whole state of a fit, in files that are written whole or not at all.

A checkpoint is one file, ``checkpoint-N.safetensors``. The largest N is the newest; the one before
it is kept.
"""

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from torch import Tensor, nn

from ..errors import CheckpointError, InputError, warn_user
from .checkpoint_file import (
    STAGES,
    UNFIT,
    DamagedError,
    Saved,
    packed,
    read,
    refuse_foreign,
    write_whole,
)
from .state import History, LoopState

try:
    import fcntl
except ImportError:  # Windows, where another fit is noticed when it writes
    fcntl = None  # type: ignore[assignment]

EVERY = 300.0  # seconds between checkpoints within an epoch
_LINGER = 15.0  # seconds for which workers may outlive a fit that was killed
_NAME = re.compile(r"checkpoint-(\d{1,9})\.safetensors")

log = logging.getLogger(__name__)


@dataclass
class Checkpoints:
    """Checkpoints of one fit.

    Attributes
    ----------
    folder : Path
    told : dict
        Data and parameters of the fit.
    seed : int
    saved : Saved or None
        Checkpoint from which the fit goes on; None: it starts from the beginning.
    writes : bool
        Whether this process writes; of several, one does.
    """

    folder: Path
    told: dict[str, Any]
    seed: int
    saved: Saved | None = None
    writes: bool = True
    done: tuple[str, ...] = field(init=False, default=())  # stages that are complete

    def __post_init__(self) -> None:
        numbers = _numbers(self.folder)
        self._own = set(numbers)  # those that this fit found or wrote, and may remove
        self._good = max(numbers, default=None)  # to be kept until another one is written
        self._failed = self._crowded = False
        self._lock: int | None = None
        before = 0.0
        if self.saved is not None:
            self._good = int(self.saved.file.stem.removeprefix("checkpoint-"))
            self.done, before = STAGES[self.saved.stage], self.saved.seconds
        self._started = time.monotonic() - before
        self._written = time.monotonic()

    def begin(self, network: nn.Module, history: History) -> None:
        """Take the folder, and put what the checkpoint holds into a network and a history.

        A CheckpointError says that it does not fit, or that another fit has the folder.
        """
        self._network, self._history = network, history
        if self.writes:
            self._lock = _locked(self.folder)
        if self.saved is None:
            return
        with _fitting(self.saved):
            network.load_state_dict(self.saved.network)
        history[:] = self.saved.history
        log.info("goes on from %s, %s", self.saved.file, where(self.saved))
        if self.saved.loop is None:
            self.saved = None

    def end(self) -> None:
        """Leave the folder to other fits."""
        _unlock(self._lock)
        self._lock = None

    def restore(self, state: LoopState) -> None:
        """Put what the checkpoint holds into the state of a loop, if it is of that loop's stage."""
        saved, self.saved = self.saved, None
        if saved is None or saved.loop is None or saved.stage != state.stage:
            return
        try:
            with _fitting(saved):
                state.load_state_dict({**saved.loop, "best": state.best, "history": saved.history})
        except CheckpointError:
            self._history.clear()  # nothing was learnt
            raise

    def write(self, state: LoopState) -> None:
        """Write the state of a loop; if that fails, warn and go on."""
        if not self.writes:
            return
        loop = state.state_dict()
        del loop["history"], loop["best"]
        own = state.learner.state_dict(keep_vars=True)
        best = {id(tensor): state.best[name] for name, tensor in own.items()}
        network = self._network.state_dict(keep_vars=True)
        self._write(state.stage, loop, {n: best.get(id(t), t) for n, t in network.items()})

    def write_in_time(self, state: LoopState) -> None:
        """Write the state within an epoch, if the last checkpoint is :data:`EVERY` seconds old."""
        if time.monotonic() - self._written >= EVERY:
            self.write(state)

    def write_trained(self) -> None:
        """Write the state after both stages, of which only the calibration is left."""
        if self.writes:
            self._write("trained", None, self._network.state_dict())

    def _write(self, stage: str, loop: Any, network: Mapping[str, Tensor]) -> None:
        values = {
            "told": self.told,
            "seed": self.seed,
            "stage": stage,
            "seconds": time.monotonic() - self._started,
            "history": self._history,
            "loop": loop,
            "network": dict(network),
        }
        numbers = _numbers(self.folder)
        if not self._crowded and not self._own.issuperset(numbers):
            self._crowded = True
            warn_user(
                f"Another fit writes checkpoints into {str(self.folder)!r}, too. Both are kept, "
                "but resume=True goes on from the newest alone: give each fit a checkpoint_dir of "
                "its own."
            )
        new = max([*self._own, *numbers], default=0) + 1
        file = _file(self.folder, new)
        try:
            write_whole(file, packed(values))
        except (OSError, MemoryError) as reason:
            if not self._failed:
                left = "there is none"
                if self._good is not None:
                    left = f"the last is {str(_file(self.folder, self._good))!r}"
                warn_user(
                    f"The checkpoint {str(file)!r} cannot be written: {_told(reason)}. The fit "
                    f"goes on and tries again later; until then {left}. Free space, or make the "
                    "folder writable."
                )
            self._failed = True
            return
        finally:
            self._written = time.monotonic()
        before, self._good, self._failed = self._good, new, False
        for number in self._own - {before}:
            with suppress(OSError):
                _file(self.folder, number).unlink(missing_ok=True)
        self._own = {before, new} if before is not None else {new}


def _file(folder: Path, number: int) -> Path:
    return folder / f"checkpoint-{number}.safetensors"


def prepare_folder(folder: Path) -> None:
    """Make the folder of checkpoints; see that files can be written and replaced there.

    A CheckpointError says that another fit has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _unlock(_locked(folder))
        for left in folder.glob("checkpoint-*.tmp"):  # of a process that was killed
            if _NAME.fullmatch(left.stem):
                left.unlink(missing_ok=True)
        with TemporaryFile(dir=folder) as trial:
            trial.write(b"trial")
            trial.flush()
            os.fsync(trial.fileno())
    except CheckpointError:
        raise
    except (OSError, ValueError) as reason:
        raise InputError(
            f"checkpoint_dir is {str(folder)!r}, in which no file can be written: {_told(reason)}. "
            "Give another folder, or None."
        ) from reason
    for number in _numbers(folder):
        refuse_foreign(_file(folder, number))


def _locked(folder: Path) -> int | None:
    """What holds the lock of a folder; None: there are no locks here. It ends with the process.

    A CheckpointError says that another fit, of this or another process, holds it.
    """
    if fcntl is None:
        return None
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    until = time.monotonic() + _LINGER
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return held
        except BlockingIOError as reason:
            if time.monotonic() < until:
                time.sleep(0.1)
                continue
            os.close(held)
            raise CheckpointError(
                f"Another fit writes checkpoints into {str(folder)!r} now, which one of them would "
                "lose. Give each fit a checkpoint_dir of its own, or wait until that one has ended."
            ) from reason
        except OSError:  # as on network file systems
            os.close(held)
            return None


def _unlock(held: int | None) -> None:
    """Give a lock back, of which worker processes may still have a copy."""
    if held is not None:
        fcntl.flock(held, fcntl.LOCK_UN)
        os.close(held)


def newest(folder: Path) -> Saved | None:
    """The newest checkpoint of a folder that can be read; None: there is none.

    A CheckpointError is raised if all are damaged, or the newest is of another version.
    """
    reasons: list[str] = []
    for number in sorted(_numbers(folder), reverse=True):
        try:
            saved = read(_file(folder, number))
        except DamagedError as reason:
            reasons.append(str(reason))
            continue
        if reasons:
            warn_user(f"{' '.join(reasons)} The one before it is used, {where(saved)}.")
        return saved
    if reasons:
        raise CheckpointError(
            f"{' '.join(reasons)} There is no other: fit with resume=False, which starts from the "
            "beginning."
        )
    return None


def where(saved: Saved) -> str:
    """Where in the fit a checkpoint is, in words."""
    if saved.loop is None:
        return "with both stages complete"
    return f"after epoch {saved.loop['epoch']} of the {saved.stage} stage"


@contextmanager
def _fitting(saved: Saved) -> Iterator[None]:
    """Context in which an error means that the checkpoint does not fit."""
    try:
        yield
    except UNFIT as reason:
        raise CheckpointError(
            f"The checkpoint {str(saved.file)!r} does not fit the network or its optimizer: "
            f"{' '.join(str(reason).split())[:300]}. Fit with resume=False, which starts from the "
            "beginning."
        ) from reason


def _numbers(folder: Path) -> list[int]:
    """Numbers of the checkpoints in a folder."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [int(found[1]) for name in names if (found := _NAME.fullmatch(name))]


def _told(reason: BaseException) -> str:
    return f"{type(reason).__name__}: {reason}"
