"""A run folder under several processes: the first one reads and writes it, for all.

Checkpoints are the exception: every process loads them, so all must see the same folder.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rl.ranks import Ranks
from rl.run_folder import RunFolder


class RankedFolder:
    """Every method of `rl.run_folder.RunFolder`; what it gives is the same in every process."""

    def __init__(self, folder: RunFolder | None, path: Path, ranks: Ranks):
        """`folder` is the first process's, None in the others."""
        self.path, self._folder, self._ranks = path, folder, ranks

    @property
    def own(self) -> RunFolder | None:
        """The folder itself, for what the first process does alone; None in the others."""
        return self._folder

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            return self._ranks.from_first(lambda: getattr(self._folder, name)(*args))

        return call

    def close(self) -> None:
        """Give the lock back. Waits for nobody: after an error the others may be gone."""
        if self._folder:
            self._folder.close()
