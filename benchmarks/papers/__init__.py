"""Tables and figures of the papers, each a script: python -m benchmarks.papers.NAME --help."""
