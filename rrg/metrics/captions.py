"""CIDEr and METEOR as the report generation literature computes them: by pycocoevalcap, and METEOR's Java program.

Both take reports as they are, one reference each, without the PTB tokenizer. What cannot be computed is a text
beginning with :data:`UNAVAILABLE` that says why and what to do, never a number.
"""

import importlib
import importlib.util
import math
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rrg.metrics.nlg import check_pairs

UNAVAILABLE = "unavailable: "
INSTALL = "pycocoevalcap is not installed; pip install 'sde-mtl[metrics]'"
STARTUP, PER_REPORT = 120.0, 0.1
"""Seconds that METEOR may take: to read its 270 MB of paraphrases, and for each report (0.001 is usual)."""


class _Unavailable(RuntimeError):
    pass


def cider(references: Sequence[str], hypotheses: Sequence[str]) -> float | str:
    """CIDEr-D (Vedantam et al. 2015) times 10, n = 1…4, σ = 6, by pycocoevalcap.

    Document frequencies are counted over the given references, so that a score belongs to its set of reports: the same
    pair scores differently in a subset. Where all references are one text, one study being the commonest case, every
    n-gram of theirs has idf log 1 = 0 and the score is undefined.

    Args:
        references: one text a report; tokens are separated by white space.
        hypotheses: as many generated texts.

    Returns:
        in [0, 10], or why it is unavailable.

    Raises:
        ValueError: for no texts, or unequally many.

    Example:
        >>> cider(["the heart is normal"], ["the heart is large"])
        'unavailable: CIDEr needs at least two different references, ...'
    """
    check_pairs(references, hypotheses)
    if len({tuple(text.split()) for text in references}) < 2:
        return f"{UNAVAILABLE}CIDEr needs at least two different references, its document frequencies come from them"
    try:
        scorer = importlib.import_module("pycocoevalcap.cider.cider")
    except ImportError:
        return UNAVAILABLE + INSTALL
    expected = {i: [text] for i, text in enumerate(references)}
    produced = {i: [text] for i, text in enumerate(hypotheses)}
    return float(scorer.Cider().compute_score(expected, produced)[0])


def meteor(references: Sequence[str], hypotheses: Sequence[str], *, timeout: float | None = None) -> float | str:
    """METEOR 1.5 (Denkowski & Lavie 2014) with the English resources, normalised, by the program in pycocoevalcap.

    The program reads the texts from files, one a line, where pycocoevalcap talks to it line by line: the scores are
    equal to the last digit, and a text that holds ``|||`` or line breaks cannot confuse it. It is always ended.

    Args:
        references: one text a report.
        hypotheses: as many generated texts.
        timeout: seconds until the program is stopped; by default 120 and 0.1 for each report.

    Returns:
        in [0, 1], or why it is unavailable.

    Raises:
        ValueError: for no texts, or unequally many.
    """
    check_pairs(references, hypotheses)
    limit = STARTUP + PER_REPORT * len(references) if timeout is None else timeout
    try:
        program = _meteor_program()
        problem = java_problem()
        if problem is not None:
            return UNAVAILABLE + problem
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, name) for name in ("hypotheses", "references")]
            for file, texts in zip(files, (hypotheses, references), strict=True):
                lines = (" ".join(text.split()) + "\n" for text in texts)
                file.write_text("".join(lines), encoding="utf-8", errors="replace")
            options = ["-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(program), *map(str, files), "-l", "en"]
            score = float(_java([*options, "-norm", "-q"], limit))
    except (_Unavailable, OSError) as error:
        return f"{UNAVAILABLE}{error}"
    except ValueError as error:
        return f"{UNAVAILABLE}METEOR printed no score: {error}"
    return score if math.isfinite(score) else f"{UNAVAILABLE}METEOR of these texts is {score}"


def java_problem() -> str | None:
    """Why METEOR cannot run Java, with what to do, or None."""
    if shutil.which("java") is None:
        return "no java on the PATH; install a Java runtime"
    try:
        _java(["-version"], STARTUP)
    except (_Unavailable, OSError) as error:
        return f"the java on the PATH does not run: {error}; install a Java runtime"
    return None


def _meteor_program() -> Path:
    package = importlib.util.find_spec("pycocoevalcap")
    for folder in package.submodule_search_locations or () if package else ():
        program = Path(folder, "meteor", "meteor-1.5.jar")
        if program.exists():
            return program
    raise _Unavailable(INSTALL)


def _java(arguments: Sequence[str], timeout: float) -> str:
    """Standard output of a Java program, which with all its children has ended when this returns or raises."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            ["java", *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise _Unavailable(f"java did not end within {timeout:g} s and was stopped") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        out.seek(0)
        err.seek(0)
        if code != 0:
            said = err.read().decode(errors="replace").strip().splitlines() or ["without a message"]
            raise _Unavailable(f"java ended with {code}: {said[0]}")
        return out.read().decode(errors="replace")
