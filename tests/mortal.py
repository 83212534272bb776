"""A classifier whose process dies once; a module of its own, so that workers can import it."""

import os
import signal
from pathlib import Path

from diffmic import DiffMICClassifier


class Mortal(DiffMICClassifier):
    """At its second call its process is killed, unless the file ``flag`` says that one was."""

    flag: Path
    calls = 0

    def predict_proba(self, X, **options):
        self.calls += 1
        if self.calls == 2 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict_proba(X, **options)
