"""Everything about a GPU in one command of a fixed length: `python -m benchmarks.gpu_suite --minutes 9.5 --out DIR`."""
