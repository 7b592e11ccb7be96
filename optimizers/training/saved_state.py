"""The check of a saved state before any of it is loaded."""

from typing import Any

KEYS = {"optimizer", "options", "aggregator", "skipped", "unsolved", "reuse", "average"}


def check_state(state: Any, options: dict[str, Any], name: str) -> None:
    """Refuse what is not a state of the optimizer of this name with these aggregator options.

    Raises:
        ValueError: saying what it is instead.
    """
    if not isinstance(state, dict) or set(state) != KEYS:
        raise ValueError(
            f"not a state of {name}: expected the keys {sorted(KEYS)}; a plain torch optimizer's state belongs to "
            ".optimizer.load_state_dict"
        )
    if state["options"] != options:
        raise ValueError(
            f"the state was saved with {state['options']}, this optimizer has {options}; construct it with the saved "
            "options"
        )
