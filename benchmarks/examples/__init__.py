"""Scripts that show a whole piece of work, each run as python -m benchmarks.examples.NAME."""
