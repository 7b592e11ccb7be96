"""A compact radiology report generator and its multi-task training.

rrg prepare     annotation.json and images from IU X-Ray, MIMIC-CXR, or labelled radiographs and real reports
rrg train       train on some of four tasks with any multi-task optimizer; also python -m rrg.train
rrg evaluate    generate reports from a checkpoint and score them
rrg compare     several optimizers over several seeds, with their control
rrg demo        the whole line, from real reports to a table of verdicts

``rrg.__version__`` is that of the installed distribution, sde-mtl.
"""

__version__: str


def __getattr__(name: str) -> str:
    """The version, looked up when it is asked for; importing :mod:`rrg` alone loads nothing."""
    if name == "__version__":
        import optimizers

        return optimizers.__version__
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
