"""Messages of diffmic: through ``logging``, and on standard error if nobody listens there."""

import logging
import sys

from tqdm.auto import tqdm


def bars_shown(verbose: int) -> bool:
    """Whether progress bars are drawn: at 1; at 2, beside lines, in a terminal alone."""
    return verbose == 1 or (verbose > 1 and sys.stderr.isatty())


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
