"""The samples of an evaluation: all of them as JSON lines, some of them as one page that needs nothing else."""

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from optimizers.files import write_bytes, write_text
from rrg.data import CONDITIONS, Corpus, LabelState, Pixels, Study, study_images
from rrg.metrics.clinical import DEFAULT, tabled

SHOWN = 24
LARGEST = 256
"""Pixels of an image on the page."""
MENTIONED = (LabelState.POSITIVE, LabelState.UNCERTAIN)
AGREEMENT = {"agreed": "✓", "missed": "−", "invented": "+"}
STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1d2126;--dim:#5c6670;--line:#dde1e5;--shared:#dcebf7;
--agreed:#00664a;--missed:#8a5a00;--invented:#b02e00}
@media(prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e4e7ea;--dim:#9aa4ae;--line:#31373d;--shared:#1d3a52;
--agreed:#4fd3a8;--missed:#f0b649;--invented:#ff9169}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;background:var(--paper);color:var(--ink);max-width:72rem;margin:0 auto;
padding:1.5rem 1rem;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .5rem}h2,h3{font-size:.8rem;margin:0;color:var(--dim);font-weight:600}
p{margin:.35rem 0}.dim{color:var(--dim);font-size:.875rem}
dl{display:flex;flex-wrap:wrap;gap:.75rem 1.75rem;margin:1rem 0}dt{color:var(--dim);font-size:.8rem}
dd{margin:0;font-size:1.15rem;font-variant-numeric:tabular-nums}
article{display:grid;grid-template-columns:9rem 1fr 1fr;gap:.5rem 1.5rem;border-top:1px solid var(--line);
padding:1.1rem 0}
article h2,.chips{grid-column:1/-1}figure{margin:0;display:flex;flex-wrap:wrap;gap:.4rem;align-items:flex-start}
figure img{display:block;width:9rem;aspect-ratio:1;background:#000;border-radius:3px}
.views article{grid-template-columns:14.4rem 1fr 1fr}.views img{width:7rem}
section p{margin:.2rem 0}mark{background:var(--shared);color:inherit;border-radius:2px}
ul{list-style:none;margin:.2rem 0 0;padding:0;display:flex;flex-wrap:wrap;gap:.35rem}
li{border:1px solid;border-radius:1rem;padding:.05rem .6rem;font-size:.8rem;white-space:nowrap}
.agreed{color:var(--agreed)}.missed{color:var(--missed);border-style:dashed}
.invented{color:var(--invented);border-style:dotted}
.legend{margin:.4rem 0 1.2rem}.legend li.plain{border:0;padding:0;color:var(--dim)}
@media(max-width:44rem){article,.views article{grid-template-columns:1fr}
figure img,.views img{width:auto;flex:1 1 7rem;min-width:0;max-width:14rem}}
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_samples(
    out: Path, samples: Sequence[Mapping[str, Any]], corpus: Corpus, scores: Mapping[str, Any], image_size: int
) -> None:
    """Write ``samples.jsonl`` with all samples, and ``samples.html`` with some, evenly spaced in the split.

    The page holds its images and asks nothing of the network; words that reference and generated report share in order
    are marked, and every condition is shown as agreed, missed or invented.

    Args:
        out: existing folder.
        samples: of :func:`rrg.evaluate.evaluate`, one for each study of the split.
        corpus: with their studies.
        scores: of the same evaluation.
        image_size: pixels of the images as the model saw them; the page shows at most 256.

    Raises:
        rrg.data.images.BrokenImage: if an image cannot be read; ``samples.jsonl`` is then written.
    """
    write_text(out / "samples.jsonl", "".join(json.dumps(sample) + "\n" for sample in samples))
    pairs = list(zip(samples, corpus.split(scores["split"]), strict=True))
    chosen = [pairs[i * len(pairs) // SHOWN] for i in range(SHOWN)] if len(pairs) > SHOWN else pairs
    size, views = min(image_size, LARGEST), scores["max_views"]
    articles = [_article(sample, study, study_images(study, size, views), corpus.images) for sample, study in chosen]
    write_bytes(out / "samples.html", _page(scores, len(chosen), articles).encode(errors="xmlcharrefreplace"))


def _page(scores: Mapping[str, Any], shown: int, articles: Iterable[str]) -> str:
    what = "Generated reports" if "bleu" in scores else "Classified studies"
    title = f"{what}: {scores['dataset']}, {scores['split']} split"
    studies, labeller = scores["studies"][scores["split"]], scores["labeller"]
    labelled = f"Labeller: {labeller['name']}, SHA-256 {labeller['sha256'][:12]}…"
    facts = [
        f"Images: {scores['images']}.",
        f"{shown} of {studies:,} studies, evenly spaced in the split; all are in samples.jsonl.",
        f"{_decoding(scores['decoding'])} References: {scores['references']}. {labelled}" if "bleu" in scores else "",
        f"F1 is over 14 conditions; {scores['policies'][DEFAULT]}.",
        _training(scores["training"]),
        scores["provenance"].get("attribution", ""),
    ]
    values, missing = _scores(scores)
    legend = "".join(f'<li class="{name}">{sign} {name}</li>' for name, sign in AGREEMENT.items())
    shared = "Words that both texts share in order are <mark>marked</mark>. " if "bleu" in scores else ""
    of = "mentioned in reference and generated report" if "bleu" in scores else "of the labels and the predictions"
    return "\n".join([
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<header><h1>{html.escape(title)}</h1>",
        *(f"<p>{html.escape(fact)}</p>" for fact in facts if fact),
        "<dl>" + "".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in values) + "</dl>",
        *(f'<p class="dim">{html.escape(line)}</p>' for line in missing),
        f'<p class="dim">{shared}Conditions {of}:</p>',
        f'<ul class="legend">{legend}<li class="plain">? where one of them is uncertain</li></ul></header>',
        '<main class="views">' if scores["max_views"] > 1 else "<main>",
        *articles,
        "</main></body></html>\n",
    ])  # fmt: skip


def _training(training: Mapping[str, Any]) -> str:
    parts = [training["optimizer"]["name"]] if "optimizer" in training else []
    parts += [f"{name} {training[name]}" for name in ("seed", "step") if name in training]
    return f"Trained with {', '.join(parts)}." if parts else ""


def _decoding(decoding: Mapping[str, Any]) -> str:
    length = f"at most {decoding['max_length']} tokens"
    if decoding["num_beams"] == 1:
        return f"Greedy search, {length}."
    return f"Beam search with {decoding['num_beams']} beams, length penalty {decoding['length_penalty']:g}, {length}."


def _scores(scores: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[str]]:
    """Names and values, and reasons for values that are missing."""
    values: list[tuple[str, Any]] = []
    if "bleu" in scores:
        values += [(f"BLEU-{n}", value) for n, value in enumerate(scores["bleu"], 1)]
        values += [("ROUGE-L", scores["rouge_l"]), ("CIDEr", scores["cider"]), ("METEOR", scores["meteor"])]
    values += [(f"{name} F1, micro", score["micro"]["f1"]) for name, score in tabled(scores).items()]
    known = [(name, number(value)) for name, value in values if not isinstance(value, str)]
    return known, [f"{name} {value}" for name, value in values if isinstance(value, str)]


def number(value: float | str) -> str:
    """Three decimals of a score, or the reason why there is none.

    Example:
        >>> number(0.12345), number("unavailable: no Java")
        ('0.123', 'unavailable: no Java')
    """
    return value if isinstance(value, str) else f"{value:.3f}"


def _article(sample: Mapping[str, Any], study: Study, pictures: Sequence[Pixels], kind: str) -> str:
    texts = [sample["reference"], sample.get("generated")]
    if texts[1] is None:
        bodies = [html.escape(texts[0])]
        states = sample["head"].values()
    else:
        shared = shared_words(*(text.split() for text in texts))
        bodies = [_marked(text.split(), keep) for text, keep in zip(texts, shared, strict=True)]
        states = sample["states"].values()
    alt = html.escape(f"{kind}: study {study.id}, image")
    images = "".join(
        f'<img alt="{alt} {n} of {len(pictures)}" src="{_data_uri(pixels)}">' for n, pixels in enumerate(pictures, 1)
    )
    sections = "".join(
        f"<section><h3>{name}</h3><p>{body or '(empty)'}</p></section>"
        for name, body in zip(("Reference", "Generated"), bodies, strict=False)
    )
    return (
        f"<article><h2>{html.escape(study.id)}</h2><figure>{images}</figure>{sections}"
        f'<div class="chips"><ul>{_chips(*states)}</ul></div></article>'
    )


def _data_uri(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _chips(reference: Sequence[int], produced: Sequence[int]) -> str:
    chips = []
    for condition, *states in zip(CONDITIONS, reference, produced, strict=True):
        expected, mentioned = (state in MENTIONED for state in states)
        if not (expected or mentioned):
            continue
        kind = "invented" if not expected else "agreed" if mentioned else "missed"
        unsure = "?" if LabelState.UNCERTAIN in states else ""
        tip = " → ".join(LabelState(state).name.lower() for state in states)
        chips.append(f'<li class="{kind}" title="{tip}">{AGREEMENT[kind]} {condition}{unsure}</li>')
    return "".join(chips)


def _marked(words: Sequence[str], shared: Sequence[bool]) -> str:
    """The text with runs of shared words marked, full stops drawn to the word before and marked only after one."""
    text, inside = "", False
    for word, keep in zip(words, shared, strict=True):
        keep = keep and (inside or word != ".")
        text += "</mark>" if inside and not keep else ""
        text += "" if not text or word == "." else " "
        text += "<mark>" if keep and not inside else ""
        text += html.escape(word)
        inside = keep
    return text + ("</mark>" if inside else "")


def shared_words(a: Sequence[str], b: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Which words of each belong to a longest common subsequence, the one that ROUGE-L measures.

    Example:
        >>> shared_words("no large effusion".split(), "effusion no effusion".split())
        ([True, False, True], [False, True, True])
    """
    lengths = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in reversed(range(len(a))):
        for j in reversed(range(len(b))):
            longer = max(lengths[i + 1][j], lengths[i][j + 1])
            lengths[i][j] = lengths[i + 1][j + 1] + 1 if a[i] == b[j] else longer
    in_a, in_b = [False] * len(a), [False] * len(b)
    i = j = 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            in_a[i] = in_b[j] = True
            i, j = i + 1, j + 1
        elif lengths[i + 1][j] >= lengths[i][j + 1]:
            i += 1
        else:
            j += 1
    return in_a, in_b
