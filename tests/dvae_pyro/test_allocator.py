"""Freed memory is kept: its second use maps no new pages."""

import os
import platform
import subprocess
import sys

import pytest

PAGES = """
import resource, sys
from dvae_pyro.allocator import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "keep" else None)
for turn in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [letter * (size * 2**20) for letter, size in ((b"a", 24), (b"b", 160))]  # all of it is written
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(what: str, **environment: str) -> tuple[str, int]:
    """What `keep_freed_memory` says, and how many pages 184 MiB map that have been used and freed before."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PAGES, what], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    said, mapped = done.stdout.split()
    return said, int(mapped)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_blocks_are_used_again() -> None:
    said, mapped = pages("keep")
    assert said == "True"
    assert mapped < 1000
    assert pages("leave")[1] > 10 * 1000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_what_the_environment_says_stays() -> None:
    said, mapped = pages("keep", MALLOC_MMAP_THRESHOLD_="65536")
    assert said == "False"
    assert mapped > 10 * 1000
