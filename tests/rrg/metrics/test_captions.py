"""CIDEr and METEOR: equal to pycocoevalcap's, and a reason where they cannot be had."""

import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrg.data.grammar import phantom_studies
from rrg.metrics import captions
from rrg.metrics.captions import UNAVAILABLE, cider, meteor
from rrg.metrics.nlg import bleu, rouge_l

REPORTS = [study.report for study in phantom_studies(60, seed=3)]
WORDS = st.lists(st.sampled_from(["no", "effusion", "lungs", "are", "clear", "."]), min_size=1, max_size=12)
TEXTS = WORDS.map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6)
real_java_problem = captions.java_problem


def shuffled(reports: list[str], seed: int = 0) -> list[str]:
    """Texts that share words and phrases with the reports."""
    rng = random.Random(seed)
    return [" ".join(word for word in rng.choice([report, rng.choice(reports)]).split() if rng.random() > 0.2) or "no"
            for report in reports]  # fmt: skip


def peer(name: str, references: list[str], hypotheses: list[str]) -> float | list[float]:
    module = pytest.importorskip(f"pycocoevalcap.{name.lower()}.{name.lower()}")
    texts = [dict(enumerate([text] for text in side)) for side in (references, hypotheses)]
    options = {"verbose": 0} if name == "Bleu" else {}
    return getattr(module, name)().compute_score(*texts, **options)[0]


@given(pairs=PAIRS)
def test_bleu_and_rouge_are_those_of_pycocoevalcap(pairs: list[tuple[str, str]]) -> None:
    """BLEU differs by what its constants 1e-15 and 1e-9 do to the ratio of lengths, at most 1e-9 / hypothesis words."""
    references, hypotheses = (list(side) for side in zip(*pairs, strict=True))
    assert bleu(references, hypotheses) == pytest.approx(peer("Bleu", references, hypotheses), rel=1e-12, abs=1e-9)
    assert rouge_l(references, hypotheses) == pytest.approx(peer("Rouge", references, hypotheses), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_bleu_and_rouge_agree_on_reports(seed: int) -> None:
    hypotheses = shuffled(REPORTS, seed)
    assert bleu(REPORTS, hypotheses) == pytest.approx(peer("Bleu", REPORTS, hypotheses), abs=1e-12)
    assert rouge_l(REPORTS, hypotheses) == pytest.approx(peer("Rouge", REPORTS, hypotheses), abs=1e-12)


def test_named_differences_of_rouge() -> None:
    """pycocoevalcap splits at single spaces, so that nothing is one empty word, and two spaces hold another."""
    assert (rouge_l([""], [""]), peer("Rouge", [""], [""])) == (0.0, 1.0)
    assert rouge_l(["a  b"], ["a b"]) == 1.0
    assert peer("Rouge", ["a  b"], ["a b"]) == pytest.approx(2.44 * (2 / 3) / (2 / 3 + 1.44))
    assert bleu([""], [""]) == peer("Bleu", [""], [""]) == [0.0] * 4


def test_cider_is_that_of_pycocoevalcap() -> None:
    hypotheses = shuffled(REPORTS)
    assert cider(REPORTS, hypotheses) == peer("Cider", REPORTS, hypotheses)
    assert cider(REPORTS, REPORTS) == pytest.approx(10)
    assert cider(REPORTS, [""] * 60) == 0.0


def test_document_frequencies_are_those_of_the_references() -> None:
    """ "clear" counts nothing where every reference has it, and everything where only one has."""
    pytest.importorskip("pycocoevalcap.cider.cider")
    pair = (["lungs clear"], ["clear"])
    assert cider(pair[0] + ["clear"], pair[1] + ["x"]) == 0.0
    assert cider(pair[0] + ["x"], pair[1] + ["x"]) > 1


@pytest.mark.parametrize("references", [["a b"], ["a b", "a  b"], ["", ""]])
def test_cider_of_one_text_is_undefined_not_zero(references: list[str]) -> None:
    score = cider(references, ["a b"] * len(references))
    assert str(score).startswith(f"{UNAVAILABLE}CIDEr needs at least two different references")


def test_without_pycocoevalcap_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(captions.importlib, "import_module", missing)
    monkeypatch.setattr(captions.importlib.util, "find_spec", lambda name: None)
    expected = "unavailable: pycocoevalcap is not installed; pip install 'sde-mtl[metrics]'"
    assert cider(["a", "b"], ["a", "b"]) == expected
    assert meteor(["a", "b"], ["a", "b"]) == expected


def test_texts_are_counted() -> None:
    for metric in (cider, meteor):
        with pytest.raises(ValueError, match="2 references and 1 hypotheses"):
            metric(["a", "b"], ["a"])


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the whole PATH, with the real preflight."""
    pytest.importorskip("pycocoevalcap.meteor.meteor")
    monkeypatch.setattr(captions, "java_problem", real_java_problem)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def fake_java(folder: Path, script: str) -> None:
    java = folder / "java"
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)


def test_without_java_there_is_a_reason_and_the_other_scores(path: Path) -> None:
    expected = "unavailable: no java on the PATH; install a Java runtime"
    assert meteor(["a b"], ["a b"]) == expected
    assert bleu(["a b"], ["a b"], 2) == pytest.approx([1, 1])
    assert rouge_l(["a b"], ["a b"]) == 1
    assert cider(["a b", "c d"], ["a b", "c d"]) == pytest.approx(5)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo no runtime present >&2; exit 1", "does not run: java ended with 1: no runtime present; install"),
        ("kill -9 $$", "does not run: java ended with -9: without a message"),
        ('[ "$1" = -version ] || { echo cannot reserve memory >&2; exit 3; }', "java ended with 3: cannot reserve"),
        ('[ "$1" = -version ] || kill -9 $$', "java ended with -9"),
        ("true", "METEOR printed no score: could not convert string to float: ''"),
        ('[ "$1" = -version ] || echo NaN', "METEOR of these texts is nan"),
    ],
)
def test_a_java_that_fails_gives_a_reason(path: Path, script: str, reason: str) -> None:
    fake_java(path, script)
    score = meteor(["a b"], ["a b"])
    assert isinstance(score, str)
    assert score.startswith(UNAVAILABLE)
    assert reason in score


def test_a_java_that_hangs_is_ended_with_its_children(path: Path) -> None:
    fake_java(path, f'[ "$1" = -version ] || {{ /bin/sleep 60 & echo $! > {path}/child; wait; }}')
    begun = time.perf_counter()
    score = meteor(["a b"], ["a b"], timeout=0.5)
    assert score == "unavailable: java did not end within 0.5 s and was stopped"
    assert time.perf_counter() - begun < 10
    child = int((path / "child").read_text())
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail(f"the child {child} still runs")


def test_texts_reach_the_program_one_a_line(path: Path) -> None:
    """$5 and $6 are the files; the score printed is the number of lines of both, so that a split text shows."""
    fake_java(path, '[ "$1" = -version ] || /bin/cat "$5" "$6" | /usr/bin/wc -l')
    assert meteor(["a ||| b\nc", "d\r\ne", ""], ["x\u2028y", "\n", "|||"]) == 6


@pytest.mark.slow
@pytest.mark.usefixtures("java")
def test_meteor_is_that_of_pycocoevalcap() -> None:
    hypotheses = shuffled(REPORTS)
    scorer = pytest.importorskip("pycocoevalcap.meteor.meteor").Meteor()
    texts = [dict(enumerate([text] for text in side)) for side in (REPORTS, hypotheses)]
    expected = scorer.compute_score(*texts)[0]
    for pipe in (scorer.meteor_p.stdin, scorer.meteor_p.stdout, scorer.meteor_p.stderr):
        pipe.close()
    scorer.meteor_p.kill()
    scorer.meteor_p.wait()
    assert meteor(REPORTS, hypotheses) == expected
    assert 0.1 < expected < 1


@pytest.mark.slow
@pytest.mark.usefixtures("java")
def test_meteor_survives_separators_line_breaks_and_nothing() -> None:
    plain = meteor(["the lungs are clear", "no effusion"], ["lungs are clear", "effusion"])
    odd = meteor(["the\nlungs are clear", "no effusion"], ["lungs are\r\nclear", "effusion"])
    assert plain == odd
    assert isinstance(meteor(["a ||| b", "", "effusion"], ["a ||| b", "x", ""]), float)
