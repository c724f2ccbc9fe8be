"""Memory that is freed stays with the process, for the next step to use.

The C library of Linux hands every block above a threshold back to the system as soon as it is freed, and asks for it
again a moment later. Each page must then be mapped and cleared anew; on a CPU that costs a training step up to a
quarter of its time, and log-weights of many particles half of theirs. A step allocates what the step before it freed,
so keeping it costs nothing beyond the peak.
"""

from __future__ import annotations

import ctypes
import os
import platform

__all__ = ["keep_freed_memory"]

# Numbers of mallopt(3), as <malloc.h> of glibc has them, and the environment variables that set the same.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
LARGEST_THRESHOLD = 32 * 2**20  # glibc takes no larger one; larger blocks still come from the system and go back
PAD = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks; called by command lines, before they compute.

    Nothing is done where the C library is another one, or where the environment says already what to do.

    Returns:
        Whether freed memory is kept.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in VARIABLES):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    options = ((MMAP_THRESHOLD, LARGEST_THRESHOLD), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, PAD))
    return all([bool(mallopt(option, value)) for option, value in options])
