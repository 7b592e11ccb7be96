"""``python -m sde_mtl`` is ``sde-mtl``."""

from sde_mtl.cli import main

if __name__ == "__main__":
    main()
