"""The report: one self-contained HTML page made from the files of a run or a comparison."""

from mcatrain.report.build import build_report

__all__ = ["build_report"]
