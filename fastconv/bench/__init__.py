"""The benchmark: suites of problems, paired timing of whoever computes them, records, tables, charts.

Nothing here is imported by the rest of fastconv. rich draws the table and the progress bar, matplotlib the chart.
"""
