"""The types of a sweep's arrays; imported by type checkers only, so that nothing else waits for numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]
    Codes = npt.NDArray[np.int8]
    Flags = npt.NDArray[np.bool_]
