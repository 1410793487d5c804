"""The types of a sweep's arrays; imported by type checkers only, so that nothing else waits for numpy."""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
Flags = npt.NDArray[np.bool_]
