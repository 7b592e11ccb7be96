"""A compact radiology report generator and its multi-task training.

rrg prepare     annotation.json and images from IU X-Ray, MIMIC-CXR, or labelled radiographs and real reports
rrg train       train on some of four tasks with any multi-task optimizer; also python -m rrg.train
rrg evaluate    generate reports from a checkpoint and score them
rrg compare     several optimizers over several seeds, with their control
rrg demo        the whole line, from real reports to a table of verdicts
"""
