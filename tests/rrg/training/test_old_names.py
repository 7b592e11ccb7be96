"""What runs wrote under old names is read under the new ones."""

import json
from pathlib import Path

from rrg.metrics.seeds import measured
from rrg.training.journal import Journal


def test_a_resumed_journal_has_one_name_for_the_share_of_conflicting_pairs(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "conflict": 0.5}\n{"step": 1, "conflict": 1.0}\n')
    with Journal(tmp_path, 1) as journal:
        journal.add({"step": 1, "pair_conflict_share": 0.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 0, "pair_conflict_share": 0.5}, {"step": 1, "pair_conflict_share": 0.0}]


def test_results_of_either_name_are_compared() -> None:
    old, new = ({"training_losses": {}, name: 0.4} for name in ("conflict_rate", "pair_conflict_share"))
    assert measured(old) == measured(new) == {"pair conflict share": 0.4}
