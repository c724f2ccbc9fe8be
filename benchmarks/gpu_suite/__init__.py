"""All measurements on a GPU in one command of limited duration: `python -m benchmarks.gpu_suite --minutes 9.5 --out
DIR`.
"""
