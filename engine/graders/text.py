"""Comparisons of two texts, 0 to 1. Pure; the metrics are those of rapidfuzz, nltk and rouge-score, of the first
MAX_WORDS words of each text (`fuzzy_match`: of its first MAX_LETTERS characters).

The last two are imported by whoever is the first to need them: few graders do, and nltk brings all of itself, a tenth of
what a trainer does before it is ready.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from rapidfuzz import fuzz

MAX_WORDS: Final = 4000  # some metrics grow with the square of the length
MAX_LETTERS: Final = 20_000  # compared in one call that lets no other thread go on: for some 40 ms


def string_check(value: str, reference: str, *, operation: str) -> float:
    match operation:
        case "eq":
            right = value == reference
        case "ne":
            right = value != reference
        case "like":
            right = reference in value
        case "ilike":
            right = reference.casefold() in value.casefold()
        case _:
            raise ValueError(operation)
    return float(right)


class NoSynonyms:
    """Stands where nltk wants WordNet, a download: METEOR then matches words and stems."""

    def synsets(self, _word: str) -> list[Any]:
        return []


def words(text: str) -> list[str]:
    return text.split()[:MAX_WORDS]


def fuzzy_match(value: str, reference: str) -> float:
    return float(fuzz.ratio(value[:MAX_LETTERS], reference[:MAX_LETTERS])) / 100


def bleu(value: str, reference: str) -> float:
    """Papineni et al. 2002, up to 4-grams, smoothed by method 1 of Chen and Cherry 2014 for short texts."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    if not value.split() or not reference.split():
        return 0.0
    given, wanted = words(value), words(reference)
    most = min(4, len(given), len(wanted))
    weights = (1 / most,) * most
    return float(
        sentence_bleu([wanted], given, weights=weights, smoothing_function=SmoothingFunction().method1)
    )


def gleu(value: str, reference: str) -> float:
    """Wu et al. 2016."""
    from nltk.translate.gleu_score import sentence_gleu

    if not value.split() or not reference.split():
        return 0.0
    return float(sentence_gleu([words(reference)], words(value)))


def meteor(value: str, reference: str) -> float:
    """Banerjee and Lavie 2005, by exact words and stems."""
    from nltk.translate.meteor_score import single_meteor_score

    if not value.split() or not reference.split():
        return 0.0
    return float(single_meteor_score(words(reference), words(value), wordnet=NoSynonyms()))


class RougeWords:
    """Cut again once rouge has parted the words: `a.b.c` is one of ours and three of its own."""

    def tokenize(self, text: str) -> list[str]:
        from rouge_score.tokenize import tokenize

        return list(tokenize(" ".join(words(text)), None)[:MAX_WORDS])


def rouge(kind: str) -> Callable[[str, str], float]:
    """F1 of Lin 2004."""

    def score(value: str, reference: str) -> float:
        from rouge_score.rouge_scorer import RougeScorer

        found = RougeScorer([kind], tokenizer=RougeWords()).score(reference, value)
        return float(found[kind].fmeasure)

    return score


SIMILARITY: Final[Mapping[str, Callable[[str, str], float]]] = {
    "fuzzy_match": fuzzy_match,
    "bleu": bleu,
    "gleu": gleu,
    "meteor": meteor,
    **{f"rouge_{n}": rouge(f"rouge{n}") for n in range(1, 6)},
    "rouge_l": rouge("rougeL"),
}
