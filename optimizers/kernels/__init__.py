"""What is compiled, by numba on first use and kept on disk: import a module with kernels only where it is called.

    dual, two_tasks, cholesky   the conflict-averse dual, one problem after another
    came_grad, fusion           CAME-Grad's three stages
    validity                    whether a matrix can be a Gramian
    gradients                   inner products and weighted sums of gradients where they lie
    compiled                    how kernels are compiled

These need no numba, and serve torch code as well:

    columns                     where a solved problem's numbers stand in its row
    floats                      what float64 can tell apart, and when a solver stops
    threads                     kernels over a range, in as many threads as torch has; only this knows torch

The same mathematics for any device is in :mod:`optimizers.dual.batched` and
:mod:`optimizers.aggregators._came_grad_batched`; tests/optimizers/kernels holds the two against each other.
"""

__all__: list[str] = []
