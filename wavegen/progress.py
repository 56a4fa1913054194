"""How progress bars show themselves."""

import sys
from typing import Any


def pace() -> dict[str, Any]:
    """Options for tqdm: live in a terminal; in a file or a pipe a line now and then, and none for short work."""
    return {"dynamic_ncols": True} if sys.stderr.isatty() else {"delay": 10, "mininterval": 10}
