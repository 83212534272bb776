"""Messages of diffmic: through ``logging``, and on standard error if nobody listens there."""

import logging
import os
import sys
from typing import Any

from tqdm.auto import tqdm


def bars_shown(verbose: int) -> bool:
    """Whether progress bars are drawn: at 1; at 2, beside lines, in a terminal alone."""
    return verbose == 1 or (verbose > 1 and sys.stderr.isatty())


def bar(*arguments: Any, **options: Any) -> Any:
    """A bar of tqdm; in a terminal that does not know its size, as of ``script``, 80 columns."""
    try:
        known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError, AttributeError):  # it is no terminal
        known = True
    size = {} if known else {"ncols": 79, "nrows": 24}
    return tqdm(*arguments, **{**size, **options})


class _Screen(logging.Handler):
    """Writes messages to standard error, above progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


_SCREEN = _Screen()
_SCREEN.setFormatter(logging.Formatter("%(name)s: %(message)s"))


def tell(name: str, message: str, *, shown: bool = False) -> None:
    """Log a message.

    Parameters
    ----------
    name : str
        Name of the logger, ``diffmic`` or a child of it.
    message : str
    shown : bool
        Whether a person asked for it: its level is then INFO, else DEBUG, and it goes to standard
        error if no handler of the program would show it. No logger is changed for that.
    """
    logger = logging.getLogger(name)
    level = logging.INFO if shown else logging.DEBUG
    if shown and not _is_heard(logger, level):
        _SCREEN.handle(logger.makeRecord(name, level, __file__, 0, message, (), None))
    else:
        logger.log(level, message)


def _is_heard(logger: logging.Logger, level: int) -> bool:
    """Whether a handler gets the messages of a logger."""
    if not logger.isEnabledFor(level):
        return logging.getLogger("diffmic").level > level  # as the program wants it
    found: logging.Logger | None = logger
    while found is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in found.handlers):
            return True
        found = found.parent if found.propagate else None
    return False
