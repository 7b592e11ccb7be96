"""A compact radiology report generator and its multi-task training.

python -m rrg.train       train on report generation and disease classification
python -m rrg.evaluate    generate reports from a checkpoint and score them
python -m rrg.demo        the whole line, from real reports to a table of verdicts
"""
